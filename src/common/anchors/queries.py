"""How anchoring stands, and which checkpoints there are; never commits."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import DateTime, func, select
from sqlalchemy.orm import Session

from src.common.anchors import turns
from src.common.anchors.records import checkpoint_of
from src.common.models.anchor_checkpoint import AnchorCheckpoint
from src.common.models.anchor_sink import AnchorSink, SinkProblem
from src.common.postgres.pagination import Page, decode_number_cursor


@dataclass(frozen=True, kw_only=True)
class SinkState:
    """How a sink stood when it was last looked at."""

    sink: str
    number: int | None
    """The newest checkpoint that it is known to have."""
    missing: int
    """How many checkpoints it lacks; of one that has none yet all."""
    problem: SinkProblem | None
    explanation: str | None

    @property
    def contradicts(self) -> bool:
        """Whether somebody removed something, or this database is not what it was."""
        return self.problem in {SinkProblem.SHORTENED, SinkProblem.UNKNOWN_CHECKPOINT}


@dataclass(frozen=True, kw_only=True)
class AnchorState:
    """What the workers know."""

    newest: int | None
    """The newest checkpoint; None where there is none."""
    age_seconds: float | None
    """How long ago it was closed."""
    contradiction: str | None
    """Why none is closed: the entries are not what was anchored."""
    sinks: Sequence[SinkState]

    @property
    def contradictions(self) -> int:
        """How much says that history was changed."""
        return sum(each.contradicts for each in self.sinks) + (self.contradiction is not None)


@dataclass(frozen=True, kw_only=True)
class ListedCheckpoint:
    """One checkpoint, as the database closed it."""

    number: int
    closed_at: dt.datetime
    users: int
    entries: int
    is_complete: bool
    leaves: int
    """How many came with it."""
    checkpoint_hash: str
    """In hexadecimal."""
    sinks: Sequence[str]
    """Which of those that are used have it."""


def anchor_state(session: Session) -> AnchorState:
    """How anchoring stands, as the workers last found it; no sink is asked."""
    now = func.clock_timestamp(type_=DateTime(timezone=True))
    found = session.execute(
        select(AnchorCheckpoint.number, AnchorCheckpoint.closed_at, now)
        .order_by(AnchorCheckpoint.number.desc())
        .limit(1)
    ).one_or_none()
    newest, age = None, None
    if found is not None:
        newest, closed_at, instant = found
        age = (instant - closed_at).total_seconds()
    rows = session.scalars(
        select(AnchorSink).order_by(AnchorSink.sink).execution_options(populate_existing=True)
    )
    return AnchorState(
        newest=newest,
        age_seconds=age,
        contradiction=turns.contradiction(session),
        sinks=[
            SinkState(
                sink=row.sink,
                number=row.number,
                missing=(newest or 0) - (row.number or 0),
                problem=None if row.problem is None else SinkProblem(row.problem),
                explanation=row.explanation,
            )
            for row in rows
        ],
    )


def list_checkpoints(session: Session, *, cursor: str | None, limit: int) -> Page[ListedCheckpoint]:
    """The checkpoints, newest first.

    Raises:
        Invalid: VALIDATION_ERROR, this is no cursor.
    """
    rows = session.scalars(
        select(AnchorCheckpoint)
        .where(AnchorCheckpoint.number < decode_number_cursor(cursor))
        .order_by(AnchorCheckpoint.number.desc())
        .limit(limit + 1)
    ).all()
    sinks = anchor_state(session).sinks
    items = [_listed(row, sinks) for row in rows[:limit]]
    return Page(items, str(items[-1].number) if len(rows) > limit else None)


def _listed(row: AnchorCheckpoint, sinks: Sequence[SinkState]) -> ListedCheckpoint:
    checkpoint = checkpoint_of(row.note)
    return ListedCheckpoint(
        number=row.number,
        closed_at=row.closed_at,
        users=checkpoint.users,
        entries=checkpoint.entries,
        is_complete=row.is_complete,
        leaves=checkpoint.leaves,
        checkpoint_hash=row.checkpoint_hash.hex(),
        sinks=[each.sink for each in sinks if (each.number or 0) >= row.number],
    )
