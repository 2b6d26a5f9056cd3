"""Reads entries of a user's journal, with postings, metadata and the purchase."""

import json
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence

from sqlalchemy import (
    ARRAY,
    Connection,
    Integer,
    String,
    Text,
    Uuid,
    bindparam,
    cast,
    column,
    func,
    select,
)
from sqlalchemy.orm import Session

from src.common.credits.domain.book import Posting
from src.common.credits.domain.own_commands import session_of
from src.common.credits.domain.views import GrantedPurchase, HistoryEntry
from src.common.credits.persistence.running import run
from src.common.credits.persistence.storage import reading_connection_of
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.credit_entry import (
    CreditEntry,
    CreditEntryMetadata,
    CreditPosting,
)
from src.common.models.transaction import Transaction

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


_USER_ID = bindparam("user_id", type_=Uuid(as_uuid=True))
_WANTED = func.any(bindparam("seqs", type_=ARRAY(Integer)))
_POSTING_COLUMNS = (
    CreditPosting.seq,
    CreditPosting.lot_seq,
    CreditPosting.amount,
    CreditPosting.remaining_after,
)
_POSTINGS = (
    select(*_POSTING_COLUMNS)
    .where(CreditPosting.user_id == _USER_ID, CreditPosting.seq == _WANTED)
    .order_by(CreditPosting.seq, CreditPosting.lot_seq)
)
_METADATA = cast(CreditEntryMetadata.document, Text).label("metadata")
_HAS_METADATA = (CreditEntryMetadata.user_id == CreditEntry.user_id) & (
    CreditEntryMetadata.seq == CreditEntry.seq
)
_ENTRIES = (
    select(*_HISTORY_COLUMNS, _METADATA)
    .outerjoin(CreditEntryMetadata, _HAS_METADATA)
    .where(CreditEntry.user_id == _USER_ID, CreditEntry.seq == _WANTED)
)
_ENTRY_NAMES = (*(each.key for each in _HISTORY_COLUMNS), "metadata")
_SEVERAL = (
    func.unnest(
        bindparam("user_ids", type_=ARRAY(Uuid(as_uuid=True))),
        bindparam("seqs", type_=ARRAY(Integer)),
    )
    .table_valued(column("user_id", Uuid(as_uuid=True)), column("seq", Integer), name="wanted")
    .render_derived()
)
_POSTINGS_OF_SEVERAL = (
    select(CreditPosting.user_id, *_POSTING_COLUMNS)
    .join(
        _SEVERAL,
        (CreditPosting.user_id == _SEVERAL.c.user_id) & (CreditPosting.seq == _SEVERAL.c.seq),
    )
    .order_by(CreditPosting.user_id, CreditPosting.seq, CreditPosting.lot_seq)
)
_ENTRIES_OF_SEVERAL = (
    select(CreditEntry.user_id, *_HISTORY_COLUMNS, _METADATA)
    .join(
        _SEVERAL,
        (CreditEntry.user_id == _SEVERAL.c.user_id) & (CreditEntry.seq == _SEVERAL.c.seq),
    )
    .outerjoin(CreditEntryMetadata, _HAS_METADATA)
)
_PURCHASES = (
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
    .where(
        Transaction.user_id == _USER_ID,
        Transaction.stripe_session_id == func.any(bindparam("names", type_=ARRAY(String))),
    )
)


def read_entries(
    session: Session, user_id: uuid.UUID, seqs: Sequence[int]
) -> dict[int, HistoryEntry]:
    """The booked ones of these entries, by `seq`."""
    connection = reading_connection_of(session)
    parameters = {"user_id": user_id, "seqs": list(seqs)}
    postings: dict[int, list[Posting]] = defaultdict(list)
    for seq, *line in run(connection, _POSTINGS, parameters):
        postings[seq].append(Posting(*line))
    found = [dict(row) for row in run(connection, _ENTRIES, parameters).mappings()]
    bought = _purchases(connection, user_id, [row["idempotency_key"] for row in found])
    for row in found:
        metadata: str | None = row["metadata"]
        row["metadata"] = None if metadata is None else json.loads(metadata)
        row["postings"] = postings.get(row["seq"], [])
        row["purchase"] = bought.get(row["idempotency_key"])
    return {row["seq"]: HistoryEntry(**row) for row in found}


def read_opening_entries(
    session: Session, holds: Sequence[tuple[uuid.UUID, int]]
) -> dict[tuple[uuid.UUID, int], HistoryEntry]:
    """The entries that opened these holds, of any users, in two statements; of no purchase."""
    connection = reading_connection_of(session)
    parameters = {
        "user_ids": [user_id for user_id, _ in holds],
        "seqs": [seq for _, seq in holds],
    }
    postings: dict[tuple[uuid.UUID, int], list[Posting]] = defaultdict(list)
    for user_id, seq, *line in run(connection, _POSTINGS_OF_SEVERAL, parameters):
        postings[user_id, seq].append(Posting(*line))
    found: dict[tuple[uuid.UUID, int], HistoryEntry] = {}
    for user_id, *values in run(connection, _ENTRIES_OF_SEVERAL, parameters):
        row = dict(zip(_ENTRY_NAMES, values, strict=True))
        metadata: str | None = row["metadata"]
        row["metadata"] = None if metadata is None else json.loads(metadata)
        place = (user_id, row["seq"])
        found[place] = HistoryEntry(**row, postings=postings.get(place, []), purchase=None)
    return found


def entries_of_lot(
    session: Session, user_id: uuid.UUID, lot_seq: int, *, limit: int
) -> list[HistoryEntry]:
    """What made a purchase's lot, and what money back did to it; the oldest first."""
    seqs = _naming(session, user_id, lot_seq, limit)
    found = read_entries(session, user_id, [lot_seq, *seqs])
    return [found[seq] for seq in sorted(found)]


def related_entries(
    session: Session, user_id: uuid.UUID, seq: int, *, limit: int
) -> list[HistoryEntry]:
    """What acted on this hold, undid this entry, or took from this payment; the oldest first."""
    found = read_entries(session, user_id, _naming(session, user_id, seq, limit))
    return [found[each] for each in sorted(found)]


def _naming(session: Session, user_id: uuid.UUID, seq: int, limit: int) -> Sequence[int]:
    """The entries that name this one."""
    return session.scalars(
        select(CreditEntry.seq)
        .where(
            CreditEntry.user_id == user_id, CreditEntry.seq > seq, CreditEntry.related_seq == seq
        )
        .order_by(CreditEntry.seq)
        .limit(limit)
    ).all()


def _purchases(
    connection: Connection, user_id: uuid.UUID, keys: Iterable[str]
) -> dict[str, GrantedPurchase]:
    """The purchases that the entries of these keys credited, by key; most entries are of none."""
    key_of = {name: key for key in keys if (name := session_of(key)) is not None}
    if not key_of:
        return {}
    parameters = {"user_id": user_id, "names": list(key_of)}
    rows = run(connection, _PURCHASES, parameters).mappings()
    return {key_of[row["stripe_session_id"]]: GrantedPurchase(**row) for row in rows}
