"""Reads entries of a user's journal, with postings, metadata and the purchase."""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence

from sqlalchemy import ARRAY, Integer, cast, func, select
from sqlalchemy.orm import Session

from src.common.credits.domain.book import Posting
from src.common.credits.domain.own_commands import session_of
from src.common.credits.domain.views import GrantedPurchase, HistoryEntry
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.credit_entry import (
    CreditEntry,
    CreditEntryMetadata,
    CreditPosting,
    EntryKind,
)
from src.common.models.transaction import Transaction

_OF_A_PURCHASE = (EntryKind.CLAWBACK, EntryKind.REINSTATEMENT, EntryKind.DEBT_REPAYMENT)

_HISTORY_COLUMNS = (
    CreditEntry.seq,
    CreditEntry.kind,
    CreditEntry.amount,
    CreditEntry.balance_after,
    CreditEntry.captured,
    CreditEntry.related_seq,
    CreditEntry.idempotency_key,
    CreditEntry.reference,
    CreditEntry.actor,
    CreditEntry.effective_at,
    CreditEntry.created_at,
)


def read_entries(
    session: Session, user_id: uuid.UUID, seqs: Sequence[int]
) -> dict[int, HistoryEntry]:
    """The booked ones of these entries, by `seq`."""
    wanted = func.any(cast(list(seqs), ARRAY(Integer)))
    postings: dict[int, list[Posting]] = defaultdict(list)
    for line in session.execute(
        select(
            CreditPosting.seq,
            CreditPosting.lot_seq,
            CreditPosting.amount,
            CreditPosting.remaining_after,
        )
        .where(CreditPosting.user_id == user_id, CreditPosting.seq == wanted)
        .order_by(CreditPosting.seq, CreditPosting.lot_seq)
    ):
        postings[line.seq].append(Posting(line.lot_seq, line.amount, line.remaining_after))
    rows = session.execute(
        select(*_HISTORY_COLUMNS, CreditEntryMetadata.document.label("metadata"))
        .outerjoin(
            CreditEntryMetadata,
            (CreditEntryMetadata.user_id == CreditEntry.user_id)
            & (CreditEntryMetadata.seq == CreditEntry.seq),
        )
        .where(CreditEntry.user_id == user_id, CreditEntry.seq == wanted)
    ).mappings()
    found = rows.all()
    bought = _purchases(session, user_id, [str(row["idempotency_key"]) for row in found])
    return {
        row["seq"]: HistoryEntry(
            **row,
            postings=postings.get(row["seq"], []),
            purchase=bought.get(row["idempotency_key"]),
        )
        for row in found
    }


def entries_of_lot(
    session: Session, user_id: uuid.UUID, lot_seq: int, *, limit: int
) -> list[HistoryEntry]:
    """What made a purchase's lot, and what money back did to it; the oldest first."""
    seqs = session.scalars(
        select(CreditEntry.seq)
        .where(
            CreditEntry.user_id == user_id,
            CreditEntry.seq > lot_seq,
            CreditEntry.related_seq == lot_seq,
            CreditEntry.kind.in_(_OF_A_PURCHASE),
        )
        .order_by(CreditEntry.seq)
        .limit(limit)
    ).all()
    found = read_entries(session, user_id, [lot_seq, *seqs])
    return [found[seq] for seq in sorted(found)]


def _purchases(
    session: Session, user_id: uuid.UUID, keys: Iterable[str]
) -> dict[str, GrantedPurchase]:
    """The purchases that the entries of these keys credited, by key; most entries are of none."""
    key_of = {name: key for key in keys if (name := session_of(key)) is not None}
    if not key_of:
        return {}
    rows = session.execute(
        select(
            Transaction.transaction_id,
            Transaction.stripe_session_id,
            CheckoutOrder.package_id,
            Transaction.amount_paid_cents,
            Transaction.currency,
        )
        .outerjoin(
            CheckoutOrder,
            (CheckoutOrder.stripe_session_id == Transaction.stripe_session_id)
            & (CheckoutOrder.user_id == Transaction.user_id),
        )
        .where(Transaction.user_id == user_id, Transaction.stripe_session_id.in_(key_of))
    ).mappings()
    return {key_of[row["stripe_session_id"]]: GrantedPurchase(**row) for row in rows}
