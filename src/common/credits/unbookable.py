"""Notes users whose expiries cannot be booked, and when to try them again.

So that one user's damaged books hold up nobody else's. On the caller's open session; never commits.
"""

import datetime as dt
import uuid
from collections.abc import Sequence

from sqlalchemy import ColumnElement, delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from src.common.models.credit_booking_failure import CreditBookingFailure
from src.common.models.user import User
from src.common.postgres.kept_errors import KeptError

RETRY_DELAY_MAX_SECONDS = 900
_DOUBLINGS_MAX = 10

_version = (
    select(User.credits_version)
    .where(User.user_id == CreditBookingFailure.user_id)
    .scalar_subquery()
)
"""What the user's is now; a subquery, so that no plan reads all users."""


def note(session: Session, user_id: uuid.UUID, error: KeptError) -> None:
    """Note that a user could not be booked, and when to try again: after 1, 2, 4 … seconds."""
    now = func.statement_timestamp()
    version = select(User.credits_version).where(User.user_id == user_id).scalar_subquery()
    failure = {
        "credits_version": version,
        "error_type": error.error_type,
        "message": error.message,
        "last_failed_at": now,
    }
    doublings = func.least(CreditBookingFailure.attempts, _DOUBLINGS_MAX)
    seconds = func.least(func.power(2, doublings), RETRY_DELAY_MAX_SECONDS)
    session.execute(
        insert(CreditBookingFailure)
        .values(
            user_id=user_id,
            attempts=1,
            first_failed_at=now,
            next_attempt_at=now + dt.timedelta(seconds=1),
            **failure,
        )
        .on_conflict_do_update(
            index_elements=[CreditBookingFailure.user_id],
            set_={
                **failure,
                "attempts": CreditBookingFailure.attempts + 1,
                "next_attempt_at": now + func.make_interval(0, 0, 0, 0, 0, 0, seconds),
            },
        )
    )


def forget(session: Session, user_ids: Sequence[uuid.UUID]) -> None:
    """These users were booked."""
    session.execute(delete(CreditBookingFailure).where(CreditBookingFailure.user_id.in_(user_ids)))


def due_for_retry(session: Session, limit: int) -> Sequence[uuid.UUID]:
    """Noted users whose next attempt is due, or whose books moved on by somebody else's doing."""
    is_due = CreditBookingFailure.next_attempt_at <= func.clock_timestamp()
    return session.scalars(
        select(CreditBookingFailure.user_id)
        .where(or_(is_due, ~_still_fails()))
        .order_by(CreditBookingFailure.next_attempt_at)
        .limit(limit)
    ).all()


def unbookable_users(
    session: Session, user_ids: Sequence[uuid.UUID] | None = None
) -> Sequence[CreditBookingFailure]:
    """Everybody who cannot be booked, or who of these; the first to fail first."""
    statement = (
        select(CreditBookingFailure)
        .where(_still_fails())
        .order_by(CreditBookingFailure.first_failed_at)
        .execution_options(populate_existing=True)
    )
    if user_ids is not None:
        statement = statement.where(CreditBookingFailure.user_id.in_(user_ids))
    return session.scalars(statement).all()


def count_unbookable_users(session: Session) -> int:
    """How many users cannot be booked."""
    return session.scalars(
        select(func.count()).select_from(CreditBookingFailure).where(_still_fails())
    ).one()


def _still_fails() -> ColumnElement[bool]:
    return CreditBookingFailure.credits_version == _version
