"""The worker's work at anchors: a checkpoint where one is due, and sinks that lack some."""

import asyncio
from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial

import structlog

from src.cli.reach import in_database
from src.common.anchors.configuration import configured_signing_key, configured_sinks
from src.common.anchors.run import Round, run_round
from src.common.anchors.snapshot import AnchorContradiction
from src.common.anchors.standings import Standing, someone_waits
from src.common.anchors.turns import is_due
from src.common.database import SessionLocal
from src.common.exceptions import Conflict, InProgress
from src.common.models.anchor_sink import SinkProblem
from src.common.settings import get_settings

logger = structlog.get_logger(__name__)

REST_SECONDS = 0.012
"""How long the worker rests after each step, which takes some milliseconds: whoever spends
meanwhile has the machine. A checkpoint over a million users rests for half a minute."""


async def anchor_where_due() -> bool:
    """Close a checkpoint if it is time, and bring sinks what they lack; cancelled between steps."""
    settings = get_settings()
    if not settings.has_anchors:
        return False
    sinks = configured_sinks(settings)
    closes = await in_database(partial(is_due, interval_seconds=settings.anchor_interval_seconds))
    if not closes and not await in_database(partial(someone_waits, sinks=sinks)):
        return False
    key = configured_signing_key(settings)
    try:
        result = await paced(run_round(SessionLocal, sinks, key, closes=closes))
    except InProgress:
        return False
    except Conflict as refused:
        logger.warning("No checkpoint is closed", reason=refused.message)
        return False
    except AnchorContradiction as found:
        logger.error(  # noqa: TRY400  a finding, and no failure of ours
            "History was changed: run `flashslides verify --anchors`; no checkpoint is closed",
            reason=found.message,
        )
        return False
    _tell_of(result.standings)
    if result.checkpoint is not None:
        logger.info(
            "Closed a checkpoint",
            number=result.checkpoint.number,
            users=result.checkpoint.users,
            entries=result.checkpoint.entries,
        )
    return False


async def paced(steps: Generator[int, None, Round]) -> Round:
    """All steps, with rests between them in which whoever is cancelled ends."""
    with closing(steps):
        while True:
            try:
                next(steps)
            except StopIteration as ended:
                result: Round = ended.value
                return result
            await asyncio.sleep(REST_SECONDS)


def _tell_of(standings: Sequence[Standing]) -> None:
    for standing in standings:
        if standing.problem is None:
            continue
        is_away = standing.problem is SinkProblem.UNAVAILABLE
        say = logger.warning if is_away else logger.error
        say(
            "A sink cannot be used; it is tried again"
            if is_away
            else "A sink does not fit this database: nothing is appended to it",
            sink=standing.sink,
            problem=str(standing.problem),
            reason=standing.explanation,
        )
