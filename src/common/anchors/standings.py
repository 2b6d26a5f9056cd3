"""How far each sink is, and whether what it has is what this database closed; never commits."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import DateTime, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, sessionmaker

from src.common.anchors.records import checkpoint_of
from src.common.anchors.sinks import Sink, SinkUnavailable
from src.common.exceptions import Inconsistent
from src.common.models.anchor_checkpoint import AnchorCheckpoint
from src.common.models.anchor_sink import AnchorSink, SinkProblem

_RETRY_SECONDS = 60
_RETRY_MAX_SECONDS = 3_600
_NOW = func.clock_timestamp(type_=DateTime(timezone=True))


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What was found when a sink was looked at."""

    sink: str
    number: int | None
    """The newest checkpoint that it has; as far as is known, where there is a problem."""
    problem: SinkProblem | None = None
    explanation: str | None = None

    @property
    def stops_all(self) -> bool:
        """Whether no checkpoint may be closed: the next one would fork what this sink has."""
        return self.problem is SinkProblem.UNKNOWN_CHECKPOINT


def look_at(sessions: sessionmaker[Session], sink: Sink) -> Standing:
    """Ask a sink for its newest checkpoint and compare it with what this database closed."""
    with sessions() as session:
        known = _known_number(session, sink.name)
    try:
        note = sink.newest(known)
    except SinkUnavailable as error:
        return _standing(sink, known, SinkProblem.UNAVAILABLE, error.message)
    except Inconsistent as error:
        return _standing(sink, known, SinkProblem.UNKNOWN_CHECKPOINT, error.message)
    if note is None:
        if known is None:
            return Standing(sink=sink.name, number=None)
        explanation = f"It had checkpoint {known}, and has none."
        return _standing(sink, known, SinkProblem.SHORTENED, explanation)
    found = checkpoint_of(note)
    with sessions() as session:
        row = session.get(AnchorCheckpoint, found.number)
    if row is None or row.checkpoint_hash != found.hash:
        explanation = (
            f"It has a checkpoint {found.number} of {found.closed_at:%Y-%m-%d %H:%M:%S} UTC that "
            "this database does not know: the database was set back, or is another one."
        )
        return _standing(sink, known, SinkProblem.UNKNOWN_CHECKPOINT, explanation)
    if known is not None and found.number < known:
        explanation = f"It had checkpoint {known}, and now ends at {found.number}."
        return _standing(sink, known, SinkProblem.SHORTENED, explanation)
    return Standing(sink=sink.name, number=found.number)


def note_standing(session: Session, standing: Standing) -> None:
    """Write it down, for whoever asks how the sinks are, and when to try again."""
    is_away = standing.problem is SinkProblem.UNAVAILABLE
    longer = func.least(
        dt.timedelta(seconds=_RETRY_SECONDS) * func.pow(2, func.least(AnchorSink.failures, 10)),
        dt.timedelta(seconds=_RETRY_MAX_SECONDS),
    )
    found = {
        "number": standing.number,
        "looked_at": _NOW,
        "problem": standing.problem,
        "explanation": standing.explanation,
    }
    soon = _NOW + dt.timedelta(seconds=_RETRY_SECONDS)
    session.execute(
        insert(AnchorSink)
        .values(sink=standing.sink, failures=int(is_away), next_attempt_at=soon, **found)
        .on_conflict_do_update(
            index_elements=[AnchorSink.sink],
            set_={
                **found,
                "failures": AnchorSink.failures + 1 if is_away else 0,
                "next_attempt_at": _NOW + longer if is_away else soon,
            },
        )
    )


def forget_other_sinks(session: Session, sinks: Sequence[Sink]) -> None:
    """Forget those that are not used any more."""
    names = [sink.name for sink in sinks]
    session.execute(
        delete(AnchorSink)
        .where(AnchorSink.sink.not_in(names))
        .execution_options(synchronize_session=False)
    )


def someone_waits(session: Session, sinks: Sequence[Sink]) -> bool:
    """Whether a sink lacks a checkpoint and it is time to try; without asking any."""
    newest = newest_number(session)
    if newest is None:
        return False
    names = [sink.name for sink in sinks]
    rows = session.execute(
        select(AnchorSink.sink, AnchorSink.number, AnchorSink.next_attempt_at <= _NOW).where(
            AnchorSink.sink.in_(names)
        )
    )
    known = {name: (number, is_time) for name, number, is_time in rows}
    return any(
        is_time and (number or 0) < newest
        for number, is_time in (known.get(name, (None, True)) for name in names)
    )


def newest_number(session: Session) -> int | None:
    """The newest checkpoint that this database closed; None where there is none."""
    numbers = select(AnchorCheckpoint.number).order_by(AnchorCheckpoint.number.desc())
    return session.scalars(numbers.limit(1)).one_or_none()


def _known_number(session: Session, sink: str) -> int | None:
    return session.scalars(select(AnchorSink.number).where(AnchorSink.sink == sink)).one_or_none()


def _standing(sink: Sink, known: int | None, problem: SinkProblem, explanation: str) -> Standing:
    return Standing(sink=sink.name, number=known, problem=problem, explanation=explanation)
