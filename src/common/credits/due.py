"""Books lots and holds that have expired, for users whom nobody asks anything meanwhile.

Nothing depends on it: every operation first settles its user's book (`rules.settle`). This keeps
`credits_balance` close to the effective balance for whoever reads the column. It also keeps the
indexes of open lots and holds small. Several workers may run at once and be killed at any time.
"""

import datetime as dt
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Integer,
    Select,
    Subquery,
    bindparam,
    func,
    literal_column,
    select,
    union_all,
)
from sqlalchemy.orm import Session

from src.common.credits.domain import rules
from src.common.credits.domain.arguments import check_instant, check_number
from src.common.credits.domain.book import StoredBook
from src.common.credits.operations import book_pending
from src.common.credits.persistence.storage import load_books, write_books
from src.common.models.credit_booking_failure import CreditBookingFailure
from src.common.models.credit_hold import CreditHold, HoldStatus
from src.common.models.credit_lot import CreditLot
from src.common.models.user import User

BATCH_USERS = 100
_WIDENING = 4


def expire_due(
    session: Session, *, limit: int = BATCH_USERS, now: dt.datetime | None = None
) -> int:
    """Book what has expired of some users' lots and holds, the longest overdue first.

    Two kinds of users are passed over. Those whose row is locked are settled by whoever has locked
    it. Those who could not be booked before have a next attempt of their own (`unbookable.py`).

    Args:
        session: In a database transaction of the caller's.
        limit: How many users at most, 1 or more.
        now: Replaces the database's clock, in tests.

    Returns:
        How many users were booked. Fewer than `limit` means that nobody else was due.

    Raises:
        Invalid: VALIDATION_ERROR, naming the argument.
    """
    check_number("limit", limit)
    if now is not None:
        check_instant("now", now)
    session.flush()
    book_pending(session)
    due = due_users(session, window=limit, now=now)
    stored: dict[uuid.UUID, StoredBook] = {}
    # Nobody is waited for, so it does no harm that each round begins at the lowest id again.
    while wanted := sorted(islice(due, limit - len(stored))):
        stored |= load_books(session, _lock_free(session, wanted), now=now)
    return _settle(session, stored)


def expire_user(session: Session, user_id: uuid.UUID, *, now: dt.datetime | None = None) -> bool:
    """Book one user's expiries, whether noted as unbookable or not; False where they are locked."""
    session.flush()
    book_pending(session)
    locked = _lock_free(session, [user_id])
    _settle(session, load_books(session, locked, now=now))
    return bool(locked)


def due_users(
    session: Session, *, window: int = BATCH_USERS, now: dt.datetime | None = None
) -> Iterator[uuid.UUID]:
    """Whoever has a dead lot or an overdue hold, the longest overdue first, locked or not.

    Without those noted as unbookable. Looks at `window` lots and holds, and at more only where more
    users are asked for.
    """
    seen: set[uuid.UUID] = set()
    while True:
        rows = session.scalars(_next_due(window), {"now": now}).all()
        found = [user_id for user_id in dict.fromkeys(rows) if user_id not in seen]
        seen.update(found)
        yield from found
        if len(rows) < window:
            return
        window *= _WIDENING


def overdue_seconds(session: Session) -> float:
    """How long ago the lot or hold expired that has waited longest to be booked; 0 for none.

    Without those of users noted as unbookable.
    """
    found = session.execute(_first_due(), {"now": None}).one_or_none()
    return 0.0 if found is None else float((found[1] - found[0]).total_seconds())


def _lock_free(session: Session, user_ids: Sequence[uuid.UUID]) -> Sequence[uuid.UUID]:
    """Lock those whom nobody else has locked."""
    return session.scalars(
        select(User.user_id)
        .where(User.user_id.in_(user_ids))
        .order_by(User.user_id)
        .with_for_update(key_share=True, skip_locked=True)
    ).all()


def _settle(session: Session, stored: Mapping[uuid.UUID, StoredBook]) -> int:
    """Decide and write what is due; for how many users there was anything."""
    books = [rules.settle(stored[user_id]) for user_id in sorted(stored)]
    write_books(session, books)
    return sum(bool(book.entries) for book in books)


@cache
def _next_due(window: int) -> Select[uuid.UUID]:
    """The users of the `window` lots and holds that fall due next, where they are due already.

    What is due is looked up last: a condition inside would let the planner guess how much that is,
    and, guessing little, read and sort all of it for every batch. So it walks the first entries of
    two partial indexes, whatever it knows. For the same reason the limits are no parameters.
    """
    upcoming = _upcoming(window)
    return (
        select(upcoming.c.user_id)
        .where(upcoming.c.expires_at <= _now())
        .order_by(upcoming.c.expires_at)
    )


@cache
def _first_due() -> Select[dt.datetime, dt.datetime]:
    """When that expired which is overdue longest, and the instant of asking."""
    upcoming = _upcoming(1)
    return (
        select(upcoming.c.expires_at, _now())
        .where(upcoming.c.expires_at <= _now())
        .order_by(upcoming.c.expires_at)
        .limit(1)
    )


def _now() -> ColumnElement[dt.datetime]:
    now = bindparam("now", type_=DateTime(timezone=True))
    return func.coalesce(now, func.statement_timestamp())


def _upcoming(window: int) -> Subquery:
    unbookable = select(CreditBookingFailure.user_id)
    lots = (
        select(CreditLot.user_id, CreditLot.expires_at)
        .where(CreditLot.is_open, CreditLot.expires_at.is_not(None))
        .where(CreditLot.user_id.not_in(unbookable))
        .order_by(CreditLot.expires_at)
    )
    holds = (
        select(CreditHold.user_id, CreditHold.expires_at)
        .where(CreditHold.status == literal_column(f"'{HoldStatus.OPEN}'"))
        .where(CreditHold.user_id.not_in(unbookable))
        .order_by(CreditHold.expires_at)
    )
    limit = literal_column(str(window), Integer)
    return union_all(
        select(lots.limit(limit).subquery("lot")), select(holds.limit(limit).subquery("hold"))
    ).subquery("upcoming")
