"""Everything the tables say of a user's books, every column of them, as of one snapshot."""

import datetime as dt
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ARRAY, Row, Select, Uuid, bindparam, cast, func, select, text
from sqlalchemy.orm import Session

from src.common.credits.reversed_money import ReversalRow
from src.common.credits.writing import COLUMNS, Part
from src.common.models.user import User

JOURNAL_MAX = 1_000_000
"""Entries of one user that are replayed at most: some GB of memory."""
PORTION_ENTRIES = 50_000
"""Entries read at a time, unless one user has more."""
_IDS = ARRAY(Uuid(as_uuid=True))


class EntryRow(NamedTuple):
    """A row of `credit_entries`, in the order of `writing.COLUMNS`, as all rows here."""

    seq: int
    kind: str
    amount: int
    balance_after: int
    result_balance: int
    captured: int | None
    related_seq: int | None
    hold_expires_at: dt.datetime | None
    idempotency_key: str
    request_digest: bytes
    reference: str | None
    actor: str
    effective_at: dt.datetime
    created_at: dt.datetime


class LotRow(NamedTuple):
    """A row of `credit_lots`."""

    seq: int
    source: str
    transaction_id: uuid.UUID | None
    priority: int
    granted: int
    expires_at: dt.datetime | None
    remaining: int
    last_seq: int
    is_open: bool


class PostingRow(NamedTuple):
    """A row of `credit_postings`."""

    seq: int
    lot_seq: int
    amount: int
    remaining_after: int


class HoldRow(NamedTuple):
    """A row of `credit_holds`."""

    seq: int
    amount: int
    captured: int
    status: str
    expires_at: dt.datetime


class DebtRow(NamedTuple):
    """A row of `credit_debts`."""

    seq: int
    outstanding: int
    opening_debt: int


class PurchaseRow(NamedTuple):
    """A row of `transactions`, as far as credits follow from it, and its money back."""

    transaction_id: uuid.UUID
    stripe_session_id: str
    amount_paid_cents: int
    currency: str
    credits_added: int
    refunded_cents: int
    disputed_cents: int
    predates_ledger: bool
    reversals: list[ReversalRow] | None


class StoredRows(NamedTuple):
    """One user's rows in every table of the ledger; journals in the order of `seq`."""

    user_id: uuid.UUID
    balance: int
    version: int
    entries: Sequence[EntryRow]
    postings: Sequence[PostingRow]
    lots: Sequence[LotRow]
    holds: Sequence[HoldRow]
    debts: Sequence[DebtRow]
    notes: Sequence[int]
    """The entries that have metadata."""
    purchases: Sequence[PurchaseRow]


class UnreadableRows(NamedTuple):
    """A user of whose rows one holds what no row can, such as an instant without an end."""

    user_id: uuid.UUID
    message: str


def _columns(part: Part) -> str:
    """What a row of this part consists of, as JSON has it: bytes in base64."""
    return ", ".join(
        f"encode({name}, 'base64')" if name == "request_digest" else name
        for name in COLUMNS[part]
        if name != "user_id"
    )


def _rows(table: str, columns: str, order: str = "seq") -> str:
    return (
        f"(SELECT json_agg(json_build_array({columns})) FROM "  # noqa: S608  our own names
        f"(SELECT * FROM {table} WHERE user_id = people.user_id ORDER BY {order}) AS rows)::text"
    )


_REVERSALS = """(SELECT json_agg(json_build_array(reversal_id, kind, status, amount_cents, currency)
    ORDER BY reversal_id) FROM stripe_reversals WHERE transaction_id = rows.transaction_id)"""
_PURCHASE = (
    "transaction_id, stripe_session_id, amount_paid_cents, currency, credits_added, refunded_cents,"
    f" disputed_cents, predates_ledger, {_REVERSALS}"
)
_NOTES = "(SELECT json_agg(seq) FROM credit_entry_metadata WHERE user_id = people.user_id)::text"
_STATEMENT = text(
    ",\n".join(
        (
            "SELECT user_id, credits_balance, credits_version",
            _rows("credit_entries", _columns(Part.ENTRIES)),
            _rows("credit_postings", _columns(Part.POSTINGS), "seq, lot_seq"),
            _rows("credit_lots", _columns(Part.NEW_LOTS)),
            _rows("credit_holds", _columns(Part.NEW_HOLDS)),
            _rows("credit_debts", _columns(Part.DEBTS)),
            _NOTES,
            _rows("transactions", _PURCHASE, "transaction_id"),
        )
    )
    + "\nFROM users AS people WHERE user_id = ANY (:user_ids) ORDER BY user_id"
).bindparams(bindparam("user_ids", type_=_IDS))
"""One statement, because one has one snapshot in whatever isolation its caller works."""

_READERS = (
    msgspec.json.Decoder(list[EntryRow]).decode,
    msgspec.json.Decoder(list[PostingRow]).decode,
    msgspec.json.Decoder(list[LotRow]).decode,
    msgspec.json.Decoder(list[HoldRow]).decode,
    msgspec.json.Decoder(list[DebtRow]).decode,
    msgspec.json.Decoder(list[int]).decode,
    msgspec.json.Decoder(list[PurchaseRow]).decode,
)


class RawRows(NamedTuple):
    """A user's rows as the database sent them: `read_rows` makes sense of them."""

    user_id: uuid.UUID
    balance: int
    version: int
    tables: Sequence[str | None]
    """JSON, a table each."""


Versions = Select[uuid.UUID, int]


def versions_of(user_ids: Sequence[uuid.UUID] | None) -> Versions:
    """How many entries users have, by `user_id`: these, or everybody."""
    everybody = select(User.user_id, User.credits_version).order_by(User.user_id)
    if user_ids is None:
        return everybody
    return everybody.where(User.user_id == func.any(cast(list(user_ids), _IDS)))


def portions_of(
    versions: Sequence[Row[uuid.UUID, int]],
) -> tuple[list[list[uuid.UUID]], list[uuid.UUID]]:
    """The users in portions whose journals fit into memory, and those whose own does not."""
    portions: list[list[uuid.UUID]] = []
    too_long: list[uuid.UUID] = []
    room = 0
    for user_id, version in versions:
        if version > JOURNAL_MAX:
            too_long.append(user_id)
            continue
        if version > room or not portions:
            portions.append([])
            room = PORTION_ENTRIES
        portions[-1].append(user_id)
        room -= version
    return portions, too_long


def fetch_rows(session: Session, user_ids: Sequence[uuid.UUID]) -> list[RawRows]:
    """The rows of these users in `user_id` order; who is no user is missing."""
    found = session.execute(_STATEMENT, {"user_ids": user_ids})
    return [RawRows(user, balance, version, rest) for user, balance, version, *rest in found]


def read_rows(raw: Sequence[RawRows]) -> Iterator[StoredRows | UnreadableRows]:
    """Each user's rows, one user after the other."""
    for user_id, balance, version, tables in raw:
        try:
            parts: list[Any] = [
                read(table) if table else [] for read, table in zip(_READERS, tables, strict=True)
            ]
        except msgspec.MsgspecError as error:
            yield UnreadableRows(user_id, str(error))
        else:
            yield StoredRows(user_id, balance, version, *parts)
