"""The balance as of a past instant, from the journal and what had expired by then."""

import datetime as dt
import uuid

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from src.common.credits.domain.arguments import invalid
from src.common.credits.domain.book import Book, Lot
from src.common.credits.domain.views import Balance, next_expiry
from src.common.models.credit_entry import CreditEntry, CreditPosting, EntryKind
from src.common.models.credit_lot import CreditLot, LotSource

_BEFORE_THE_LEDGER = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)


def balance_as_of(session: Session, book: Book, as_of: dt.datetime) -> Balance:
    """What a settled book's user had at a past instant.

    Entries count in the order of `effective_at`: what counts by then is a first part of them.

    Raises:
        Invalid: VALIDATION_ERROR, `as_of` lies in the future.
    """
    if as_of > book.now:
        raise invalid("as_of", "lies in the future")
    newest = session.execute(
        select(CreditEntry.seq, CreditEntry.balance_after)
        .where(
            CreditEntry.user_id == book.user_id,
            CreditEntry.seq <= book.version_before,
            CreditEntry.effective_at <= max(as_of, _BEFORE_THE_LEDGER),
        )
        .order_by(CreditEntry.seq.desc())
        .limit(1)
    ).one_or_none()
    version, total = (newest.seq, newest.balance_after) if newest else (0, 0)
    lots = _lots_after(session, book.user_id, version)
    held = _held_after(session, book.user_id, version)
    for due in book.entries:
        if due.effective_at <= as_of:
            total += due.amount
            held -= due.amount if due.kind is EntryKind.HOLD_EXPIRY else 0
            for posting in due.postings:
                lot = lots.setdefault(posting.lot_seq, book.lots[posting.lot_seq])
                lot.remaining = posting.remaining_after
    live = sorted((lot for lot in lots.values() if lot.remaining), key=lambda lot: lot.burn_order)
    return Balance(
        balance=total,
        held=held,
        debt=None,
        lots=live,
        next_expiry=next_expiry(live),
        version=version,
    )


def _lots_after(session: Session, user_id: uuid.UUID, version: int) -> dict[int, Lot]:
    """All lots as they were right after entry `version`."""
    rows = session.execute(
        select(
            CreditLot.seq,
            CreditLot.source,
            CreditLot.priority,
            CreditLot.granted,
            CreditLot.expires_at,
            CreditLot.transaction_id,
            func.sum(CreditPosting.amount).label("remaining"),
            func.max(CreditPosting.seq).label("last_seq"),
        )
        .join(
            CreditPosting,
            (CreditPosting.user_id == CreditLot.user_id) & (CreditPosting.lot_seq == CreditLot.seq),
        )
        .where(CreditLot.user_id == user_id, CreditPosting.seq <= version)
        .group_by(CreditLot.user_id, CreditLot.seq)
    )
    return {
        row.seq: Lot(
            seq=row.seq,
            source=LotSource(row.source),
            priority=row.priority,
            granted=row.granted,
            expires_at=row.expires_at,
            remaining=row.remaining,
            last_seq=row.last_seq,
            transaction_id=row.transaction_id,
        )
        for row in rows
    }


def _held_after(session: Session, user_id: uuid.UUID, version: int) -> int:
    """What open holds kept out of the balance: taken, less what was captured or came back."""
    moved = func.sum(CreditEntry.amount + func.coalesce(CreditEntry.captured, 0))
    moving = [EntryKind.HOLD, EntryKind.CAPTURE, EntryKind.RELEASE, EntryKind.HOLD_EXPIRY]
    total = session.scalars(
        select(moved).where(
            CreditEntry.user_id == user_id,
            CreditEntry.seq <= version,
            CreditEntry.kind.in_(moving),
        )
    ).one()
    return -(total or 0)
