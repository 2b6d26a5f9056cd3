"""Booking what has fallen due: nothing depends on it, since every operation settles first.

It keeps `credits_balance` close to the effective balance for whoever reads the column, and the
indexes of open lots and holds small. Several workers may run at once and be killed at any time.
"""

import datetime as dt

from sqlalchemy import func, literal, or_, select
from sqlalchemy.orm import Session

from src.common.credits import rules
from src.common.credits.operations import book_pending
from src.common.credits.storage import load_books, write_books
from src.common.models.credit_hold import CreditHold, HoldStatus
from src.common.models.credit_lot import CreditLot
from src.common.models.user import User

BATCH_USERS = 100


def expire_due(
    session: Session, *, limit: int = BATCH_USERS, now: dt.datetime | None = None
) -> int:
    """Book the expiries of at most `limit` users; how many users that were.

    Users whose row is locked are left to whoever holds the lock, who settles them anyway. `now`
    replaces the database's clock, in tests.
    """
    session.flush()
    book_pending(session)
    instant = func.clock_timestamp() if now is None else literal(now)
    due_lots = select(CreditLot.user_id).where(CreditLot.is_open, CreditLot.expires_at <= instant)
    due_holds = select(CreditHold.user_id).where(
        CreditHold.status == HoldStatus.OPEN, CreditHold.expires_at <= instant
    )
    user_ids = session.scalars(
        select(User.user_id)
        .where(or_(User.user_id.in_(due_lots), User.user_id.in_(due_holds)))
        .order_by(User.user_id)
        .limit(limit)
        .with_for_update(key_share=True, skip_locked=True)
    ).all()
    books = [rules.settle(book) for book in load_books(session, user_ids, now=now).values()]
    write_books(session, books)
    return sum(bool(book.entries) for book in books)
