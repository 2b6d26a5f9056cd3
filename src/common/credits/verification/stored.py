"""Values for a user's rows: every column of every table of the ledger."""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import NamedTuple

from src.common.credits.domain.reversed_money import ReversalRow


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
    entry_hash: bytes | None


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
    reversals: Sequence[ReversalRow]


class LedgerRow(NamedTuple):
    """The row of `credit_ledgers`."""

    ledger_id: bytes
    """Nothing where the row is missing."""
    is_chained: bool
    """Whether every entry of everybody has a hash."""


class HashedRows(NamedTuple):
    """One user's rows of which entries' hashes are made; each in the order of its key."""

    entries: Sequence[EntryRow]
    postings: Sequence[PostingRow]
    lots: Sequence[LotRow]
    holds: Sequence[HoldRow]
    debts: Sequence[DebtRow]


class StoredRows(NamedTuple):
    """One user's rows in every table of the ledger; journals in the order of `seq`."""

    ledger: LedgerRow

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
