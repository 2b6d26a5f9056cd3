"""One round: look at the sinks, close a checkpoint where one is wanted, bring it to the sinks."""

import time
import uuid
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

from sqlalchemy.orm import Session, sessionmaker

from src.common.anchors.checkpoints import Checkpoint
from src.common.anchors.closing import close_checkpoint
from src.common.anchors.delivery import bring, can_begin, forget_parts
from src.common.anchors.notes import SigningKey
from src.common.anchors.sinks import Sink
from src.common.anchors.snapshot import AnchorContradiction
from src.common.anchors.standings import Standing, forget_other_sinks, look_at, note_standing
from src.common.anchors.turns import (
    RENEWED_AFTER_SECONDS,
    give_back,
    note_attempt,
    note_contradiction,
    take_turn,
)
from src.common.exceptions import Conflict, InProgress
from src.common.models.anchor_sink import SinkProblem


@dataclass(frozen=True, kw_only=True)
class Round:
    """What came of it."""

    checkpoint: Checkpoint | None
    """The one that was closed; None where none was wanted, or a sink was in the way."""
    standings: Sequence[Standing]
    """How each sink stands afterwards."""


def run_round(
    sessions: sessionmaker[Session], sinks: Sequence[Sink], key: SigningKey, *, closes: bool
) -> Generator[int, None, Round]:
    """Do one round; yields how far it is, and may be ended there: the next round goes on.

    Nothing is closed while a sink has a checkpoint that this database does not know, or while none
    can be asked: the next one might be another's number.

    Raises:
        AnchorContradiction: the entries are not what the newest checkpoint says they were. It is
            noted; sinks were not appended to.
        InProgress: ANCHOR_IN_PROGRESS, another worker has the turn.
        Conflict, DatabaseBusy: as of `close_checkpoint`.
    """
    holder = uuid.uuid4()
    with sessions.begin() as session:
        if not take_turn(session, holder):
            raise InProgress("Another worker is at the anchors", "ANCHOR_IN_PROGRESS")
    try:
        steps = _steps(sessions, sinks, key, closes=closes)
        result = yield from _renewed(sessions, holder, steps)
    finally:
        with sessions.begin() as session:
            give_back(session, holder)
    return result


def _steps(
    sessions: sessionmaker[Session], sinks: Sequence[Sink], key: SigningKey, *, closes: bool
) -> Generator[int, None, Round]:
    standings: list[Standing] = []
    for sink in sinks:
        standings.append(look_at(sessions, sink))
        if standings[-1].problem is not None:  # otherwise `bring` notes how it ends
            with sessions.begin() as session:
                note_standing(session, standings[-1])
        yield 0
    with sessions.begin() as session:
        forget_other_sinks(session, sinks)
    checkpoint = None
    if closes and _may_close(standings):
        checkpoint = yield from _close(sessions, key, standings)
    elif closes:
        with sessions.begin() as session:
            note_attempt(session, was_blocked=True)
    for place, sink in enumerate(sinks):
        standings[place] = yield from bring(sessions, sink, standings[place])
    with sessions.begin() as session:
        forget_parts(session, standings)
    return Round(checkpoint=checkpoint, standings=standings)


def _may_close(standings: Sequence[Standing]) -> bool:
    answered = [each for each in standings if each.problem is not SinkProblem.UNAVAILABLE]
    return bool(answered) and not any(each.stops_all for each in answered)


def _close(
    sessions: sessionmaker[Session], key: SigningKey, standings: Sequence[Standing]
) -> Generator[int, None, Checkpoint]:
    with sessions.begin() as session:
        is_complete = any(each.number is None for each in standings) and not can_begin(session)
    try:
        checkpoint = yield from close_checkpoint(sessions, key, is_complete=is_complete)
    except (AnchorContradiction, Conflict) as refused:
        with sessions.begin() as session:
            note_attempt(session)
            if isinstance(refused, AnchorContradiction):
                note_contradiction(session, refused.message)
        raise
    with sessions.begin() as session:
        note_attempt(session)
        note_contradiction(session, None)
    return checkpoint


def _renewed(
    sessions: sessionmaker[Session], holder: uuid.UUID, steps: Generator[int, None, Round]
) -> Generator[int, None, Round]:
    """The same steps, with the turn renewed meanwhile; they end where it was lost."""
    renewed_at = time.monotonic()
    with closing(steps):
        while True:
            try:
                done = next(steps)
            except StopIteration as ended:
                result: Round = ended.value
                return result
            if time.monotonic() - renewed_at > RENEWED_AFTER_SECONDS:
                renewed_at = time.monotonic()
                with sessions.begin() as session:
                    if not take_turn(session, holder):
                        raise InProgress("Another worker took the turn", "ANCHOR_IN_PROGRESS")
            yield done
