"""Stored events settled together: how a worker comes through many in little time.

Each is claimed first, in one database transaction with the others, so that an attempt counts that
ends the process. Who has been tried often enough without an end goes by itself, so that one event
which ends its process takes no others along for ever.
"""

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from src.common.credits.engine.connection import EngineConnection
from src.common.database_settings import Sharding
from src.common.exceptions import BadRequest, DatabaseBusy
from src.common.postgres.citus import is_citus
from src.common.postgres.engines import begin_look_ups, build_async_engine
from src.common.postgres.routes import routed_to_schema
from src.common.settings import Settings
from src.common.stripe import attempts
from src.common.stripe.batches.readings import Reading, apart, read
from src.common.stripe.batches.settling import Together
from src.common.stripe.batches.whose import whose_is
from src.common.stripe.groups import look_up_groups
from src.common.stripe.processing import Claim, Processor, terms_of
from src.common.stripe.wire import parse_event

logger = structlog.get_logger(__name__)

EVENTS_MAX = 256
"""How many are claimed at once."""
Connections = dict[str | None, EngineConnection]
"""By the group of users that each sees."""
FEW = 8
"""So many are settled one by one: a connection for them would cost more than it saves."""


async def settle_backlog(processor: Processor) -> int:
    """Settle what is due and needs no answer of Stripe's, until little is left; how many events.

    If cancelled, it hands back what it has begun.
    """
    claimed = await _claim(processor)
    if len(claimed) <= FEW or await processor.in_database(_is_on_citus):
        return await _one_by_one(processor, claimed)
    engine = _engine(processor.settings)
    connections: Connections = {}
    try:
        tried = 0
        while claimed:
            tried += await _settle(processor, engine, connections, claimed)
            claimed = await _claim(processor)
    finally:
        for connection in connections.values():
            connection.drop()
        await engine.dispose()
    return tried


def _is_on_citus(session: Session) -> bool:
    """It joins no rows of the inbox with those of a group to lock them."""
    return is_citus(session.connection())


def _engine(settings: Settings) -> AsyncEngine:
    """One connection: the worker has no other that is awaited."""
    alone = {"database_async_pool_size": 1, "database_async_max_overflow": 0}
    return build_async_engine(settings.model_copy(update=alone))


async def _claim(processor: Processor) -> Sequence[Claim]:
    return await processor.in_database(partial(attempts.claim_several, limit=EVENTS_MAX))


async def _settle(
    processor: Processor,
    engine: AsyncEngine,
    connections: Connections,
    claimed: Sequence[Claim],
) -> int:
    """Settle these together, and by themselves those that cannot be; how many were tried.

    Events about the same are settled in the order in which they were claimed.
    """
    left = dict(enumerate(claimed))
    tried = 0
    try:
        readings = await _read_all(processor.settings, claimed)
        for group, of_group in (await _by_group(processor, readings)).items():
            with routed_to_schema(group):
                if group not in connections:
                    begin = begin_look_ups(processor.settings)
                    connections[group] = EngineConnection(engine, begin)
                together = Together(
                    connections[group],
                    terms_of(processor.settings),
                    are_stored=True,
                    is_of_group=group is not None,
                )
                tried += await _settle_of_group(processor, together, of_group, left)
            if group is not None:  # the next group's is the same one
                connections[group].close()
    except (asyncio.CancelledError, DatabaseBusy):
        await _hand_back(processor, left.values())
        raise
    return tried + await _one_by_one(processor, list(left.values()))


async def _settle_of_group(
    processor: Processor, together: Together, readings: dict[int, Reading], left: dict[int, Claim]
) -> int:
    """Settle these, by place; what was tried is taken out of what is left."""
    tried = 0
    while readings:
        places = list(readings)
        taken = [places[each] for each in apart(readings.values(), EVENTS_MAX)[0]]
        answers = await together.settle([readings.pop(place) for place in taken])
        alone: list[Claim] = []
        for place, answer in zip(taken, answers, strict=True):
            claim = left.pop(place)
            if answer is None:
                alone.append(claim)
            else:
                tried += 1
                logger.info("Stripe event", event_id=claim[1], answer=answer)
        tried += await _one_by_one(processor, alone)
    return tried


async def _by_group(
    processor: Processor, readings: dict[int, Reading]
) -> dict[str | None, dict[int, Reading]]:
    """The readings of each group of users; those of nobody are left to go by themselves.

    All are in one where groups have no schemas.
    """
    if processor.settings.sharding is Sharding.NONE:
        return {None: readings}
    asked = {place: whose_is(reading) for place, reading in readings.items()}
    groups = await processor.in_database(
        lambda session: look_up_groups(session.connection(), asked.values())
    )
    found: dict[str | None, dict[int, Reading]] = {}
    for place, whose in asked.items():
        if whose in groups:
            found.setdefault(groups[whose], {})[place] = readings[place]
    return found


async def _read_all(settings: Settings, claimed: Sequence[Claim]) -> dict[int, Reading]:
    """By place, those that may be settled together."""
    readings: dict[int, Reading] = {}
    for place, (_, _, body) in enumerate(claimed):
        reading = await _read(settings, body)
        if reading is not None:
            readings[place] = reading
    return readings


async def _read(settings: Settings, body: bytes | None) -> Reading | None:
    assert body is not None  # noqa: S101  only settled events lose theirs
    try:
        event = parse_event(body)
    except BadRequest:  # by itself it fails, and its row says why
        return None
    return await read(event, body, settings)


async def _one_by_one(processor: Processor, claimed: Sequence[Claim]) -> int:
    """Try each by itself; how many did not need Stripe's answer."""
    tried = 0
    waiting = list(reversed(claimed))
    unasked = processor.without_asking()
    try:
        while waiting:
            tried += await unasked.try_claimed(*waiting.pop())
    except asyncio.CancelledError:
        await _hand_back(processor, waiting)
        raise
    return tried


async def _hand_back(processor: Processor, claimed: Iterable[Claim]) -> None:
    for livemode, event_id, _ in claimed:
        await processor.hand_back(livemode, event_id)
