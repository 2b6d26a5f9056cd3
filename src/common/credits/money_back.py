"""Takes back the credits of refunds and disputes, and gives them back where those end.

On the caller's open session: it locks the user, reads, has `reversals.py` decide, and writes. It
never commits (rules 1 and 5).
"""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence

from sqlalchemy import Integer, Text, and_, cast, func, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from src.common.credits.assigned_balances import has_pending
from src.common.credits.domain import errors, reversals, rules
from src.common.credits.domain.book import Book
from src.common.credits.domain.commands import KEY_LENGTH_MAX, OWN_KEY_PREFIX, Result
from src.common.credits.domain.own_commands import OPENING_KEY
from src.common.credits.domain.reversals import TAKING_KINDS, LotHistory
from src.common.credits.opening.opening import write_openings
from src.common.credits.operations import execute
from src.common.credits.persistence.lot_rows import lot_json
from src.common.credits.persistence.storage import (
    add_lot,
    load_books,
    lock_users,
    read_lot,
    write_books,
)
from src.common.models.credit_entry import CreditEntry, CreditPosting, EntryKind
from src.common.models.credit_hold import CreditDebt
from src.common.models.credit_lot import CreditLot
from src.common.models.transaction import Transaction

_SEQ_DIGITS_MAX = 10


def lot_of_purchase(session: Session, transaction: Transaction) -> int | None:
    """The `seq` of the lot that money back for this purchase takes from first; locks the user.

    That is the lot the purchase made. All purchases of a user from before the ledger share the
    opening entry instead. That entry need not have a lot, and is written here where it is missing.

    Returns:
        None where nobody was credited for the purchase.

    Raises:
        RetryableDatabaseError: a passing condition of the database.
    """
    session.flush()
    if has_pending(session):
        execute(session, [])
    lock_users(session, [transaction.user_id])
    own = session.scalar(
        select(CreditLot.seq).where(
            CreditLot.user_id == transaction.user_id,
            CreditLot.transaction_id == transaction.transaction_id,
        )
    )
    if own is not None or not transaction.predates_ledger:
        return own
    opening = session.scalar(
        select(CreditEntry.seq).where(
            CreditEntry.user_id == transaction.user_id,
            CreditEntry.idempotency_key == OPENING_KEY,
        )
    )
    if opening is None:
        [book] = write_openings(session, [transaction.user_id])
        return book.opening_seq
    return opening


def settle_reversals(
    session: Session,
    user_id: uuid.UUID,
    credits_to_be_back: Mapping[int, int],
    *,
    key: str,
    actor: str,
    now: dt.datetime | None = None,
    related_seq: int | None = None,
) -> list[Result]:
    """Recompute everything that money back takes from a user, and write what differs.

    Call it whenever a row of `stripe_reversals` changes, and when a purchase is credited. The state
    decides, not the key: with the same numbers there is nothing to change, and nothing is written,
    not even what has expired.

    Args:
        session: In a database transaction of the caller's.
        user_id: Whose credits.
        credits_to_be_back: Of **every** payment with money back: its lot (`lot_of_purchase`) and
            the whole credits to take back (`reversals.credits_to_be_back`). Where several payments
            share the opening entry, their sum. A payment left out has none.
        key: Names the cause, and begins with `~`. Each entry's key is this, a colon and its `seq`.
        actor: Who asks.
        now: Replaces the database's clock, in tests.
        related_seq: The lot of the payment that the cause is about. None is the payment named in
            `credits_to_be_back`, if that is one alone.

    Returns:
        The entries written: none, one or two.

    Raises:
        Invalid: BALANCE_LIMIT_EXCEEDED, what comes back does not fit into the balance.
        NotFound: USER_NOT_FOUND.
        RetryableDatabaseError: A passing condition of the database.
        ValueError: A caller's mistake: the key is not the ledger's own or too long, a number is not
            within 0 and what its lot was granted, or there is no such lot.
    """
    if not key.startswith(OWN_KEY_PREFIX) or len(key) > KEY_LENGTH_MAX - 1 - _SEQ_DIGITS_MAX:
        raise ValueError(f"{key!r} is not a key of the ledger's own with room for a number")
    session.flush()
    if has_pending(session):
        execute(session, [], now=now)
    lock_users(session, [user_id])
    stored = load_books(session, [user_id], now=now).get(user_id)
    if stored is None:
        raise errors.user_not_found()
    book = rules.settle(stored)
    booked = _load_histories(session, book, list(credits_to_be_back))
    _load_opening(session, book)
    if missing := credits_to_be_back.keys() - book.lots.keys() - {book.opening_seq}:
        raise ValueError(f"the user has no lots {sorted(missing)}")
    if related_seq is None and len(credits_to_be_back) == 1:
        (related_seq,) = credits_to_be_back
    entries = reversals.reallocate(
        book, booked, credits_to_be_back, key=key, actor=actor, related_seq=related_seq
    )
    if entries:
        write_books(session, [book])
    return [rules.result_of(book, entry) for entry in entries]


def _load_opening(session: Session, book: Book) -> None:
    """The opening entry, and what was owed with it, where the user is from before the ledger."""
    found = session.execute(
        select(CreditEntry.seq, func.coalesce(CreditDebt.opening_debt, 0))
        .outerjoin(
            CreditDebt,
            and_(CreditDebt.user_id == CreditEntry.user_id, CreditDebt.seq == CreditEntry.seq),
        )
        .where(
            CreditEntry.user_id == book.user_id,
            CreditEntry.idempotency_key == OPENING_KEY,
        )
    ).one_or_none()
    if found is not None:
        book.opening_seq, book.opening_debt = found


def _load_histories(session: Session, book: Book, payments: Sequence[int]) -> dict[int, LotHistory]:
    """What was taken from the user's lots and what expired there; adds those lots to the book.

    The user's row is locked, so this sees what the book was loaded from. Reads the index of the
    user's entries once: money back is rare.
    """
    amount, kind = CreditPosting.amount, CreditEntry.kind
    history = (
        select(
            CreditPosting.lot_seq,
            func.coalesce(func.sum(-amount).filter(kind.in_(TAKING_KINDS)), 0).label("taken"),
            func.coalesce(func.sum(-amount).filter(kind == EntryKind.LOT_EXPIRY), 0).label(
                "expired"
            ),
        )
        .join(
            CreditEntry,
            and_(
                CreditEntry.user_id == CreditPosting.user_id, CreditEntry.seq == CreditPosting.seq
            ),
        )
        .where(
            CreditEntry.user_id == book.user_id,
            kind.in_([*TAKING_KINDS, EntryKind.LOT_EXPIRY]),
        )
        .group_by(CreditPosting.lot_seq)
        .subquery("history")
    )
    taken, expired = func.coalesce(history.c.taken, 0), func.coalesce(history.c.expired, 0)
    rows = session.execute(
        select(cast(lot_json(CreditLot), Text), taken, expired)
        .outerjoin(history, history.c.lot_seq == CreditLot.seq)
        .where(
            CreditLot.user_id == book.user_id,
            or_(CreditLot.seq == func.any(cast(payments, ARRAY(Integer))), taken > 0),
        )
    )
    return {add_lot(book, read_lot(lot)): LotHistory(*sums) for lot, *sums in rows}
