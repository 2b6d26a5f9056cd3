"""One worker at a time closes checkpoints and brings them to sinks; never commits."""

import datetime as dt
import uuid

from sqlalchemy import DateTime, case, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from src.common.models.anchor_turn import AnchorTurn

TURN_SECONDS = 120
"""How long a turn is; a worker at work renews it, and one that is killed has it until then."""
RENEWED_AFTER_SECONDS = 30.0
BLOCKED_SECONDS = 60
"""After so long a checkpoint is tried again that a sink was in the way of."""

_NOW = func.clock_timestamp(type_=DateTime(timezone=True))


def take_turn(session: Session, holder: uuid.UUID) -> bool:
    """Take the turn, or renew it; whether it is the holder's now."""
    if session.scalars(select(AnchorTurn.turn_id)).one_or_none() is None:
        session.execute(insert(AnchorTurn).values().on_conflict_do_nothing())
    taken = session.execute(
        update(AnchorTurn)
        .where(or_(AnchorTurn.expires_at <= _NOW, AnchorTurn.holder == holder))
        .values(holder=holder, expires_at=_NOW + dt.timedelta(seconds=TURN_SECONDS))
        .returning(AnchorTurn.turn_id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return taken is not None


def give_back(session: Session, holder: uuid.UUID) -> None:
    """End the turn, if it is still the holder's."""
    session.execute(
        update(AnchorTurn)
        .where(AnchorTurn.holder == holder)
        .values(holder=None, expires_at=_NOW)
        .execution_options(synchronize_session=False)
    )


def is_due(session: Session, interval_seconds: int) -> bool:
    """Whether the last one was tried so long ago, or none was.

    One that a sink was in the way of is tried again soon.
    """
    blocked = dt.timedelta(seconds=min(BLOCKED_SECONDS, interval_seconds))
    rest = case((AnchorTurn.was_blocked, blocked), else_=dt.timedelta(seconds=interval_seconds))
    since = select(AnchorTurn.turn_id).where(AnchorTurn.attempted_at > _NOW - rest)
    return session.scalars(since).one_or_none() is None


def note_attempt(session: Session, *, was_blocked: bool = False) -> None:
    """Note that a checkpoint was tried, whether it was closed or not; the turn has been taken."""
    _set(session, attempted_at=_NOW, was_blocked=was_blocked)


def note_contradiction(session: Session, contradiction: str | None) -> None:
    """Note why none could be closed, or that entries fit what was anchored."""
    _set(session, contradiction=contradiction)


def contradiction(session: Session) -> str | None:
    """Why none is closed; None where nothing contradicts."""
    return session.scalars(select(AnchorTurn.contradiction)).one_or_none()


def _set(session: Session, **values: object) -> None:
    session.execute(
        update(AnchorTurn).values(**values).execution_options(synchronize_session=False)
    )
