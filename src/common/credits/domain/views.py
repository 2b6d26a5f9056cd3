"""What reading the ledger answers: plain values, as they are after `settle`."""

import datetime as dt
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from src.common.credits.domain.book import Hold, Lot, Posting
from src.common.credits.domain.commands import Result


@dataclass(frozen=True, kw_only=True)
class Balance:
    """What a user has."""

    balance: int
    """Credits that may be spent."""
    held: int
    """Credits out of the balance that may come back from open holds."""
    debt: int | None
    """What is owed; None as of a past instant: debts are not kept by time."""
    lots: Sequence[Lot]
    """Lots with something left, in burn order."""
    next_expiry: dt.datetime | None
    """When the first of these lots dies."""
    version: int
    """The `seq` of the newest entry booked."""


@dataclass(frozen=True, kw_only=True)
class GrantedPurchase:
    """What somebody paid for the credits of a grant."""

    transaction_id: uuid.UUID
    stripe_session_id: str
    package_id: str | None
    """None where the payment was of no order of ours."""
    amount_paid_cents: int
    currency: str


@dataclass(frozen=True, kw_only=True)
class HistoryEntry:
    """An entry with its lines and the caller's metadata."""

    seq: int
    kind: str
    amount: int
    """Credits into (+) or out of (-) the balance."""
    balance_after: int
    captured: int | None
    related_seq: int | None
    idempotency_key: str
    reference: str | None
    actor: str
    effective_at: dt.datetime
    created_at: dt.datetime
    postings: Sequence[Posting]
    metadata: Mapping[str, Any] | None
    purchase: GrantedPurchase | None = None
    """What the credits were bought with; None where nothing was paid for them."""


@dataclass(frozen=True, kw_only=True)
class HoldState:
    """A hold as it is now, and the entry that opened it."""

    hold: Hold
    entry: HistoryEntry


@dataclass(frozen=True, kw_only=True)
class LotState:
    """A lot as it is now, and the entry that made it."""

    lot: Lot
    entry: HistoryEntry


@dataclass(frozen=True, kw_only=True)
class DebtState:
    """What is owed for one payment, and the entry that credited it."""

    outstanding: int
    entry: HistoryEntry


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a command would answer and write; nothing of it was done."""

    result: Result
    entries: Sequence[HistoryEntry]
    """With their lines. What is due comes first: it would be booked with the command."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why the balance is what it is."""

    now: Balance
    booked_balance: int
    """The balance after the newest entry; `due` leads from it to the one now."""
    total_by_kind: Mapping[str, int]
    """Sums of the amounts of all entries; together they are the booked balance."""
    lots: Sequence[LotState]
    """Lots with something left, in burn order."""
    holds: Sequence[HoldState]
    """The open ones."""
    debts: Sequence[DebtState]
    """The oldest payment first."""
    due: Sequence[HistoryEntry]
    """What counts already and is not booked yet."""
    agrees: bool
    """Whether the booked balance is the sum of all entries and of all lots."""


def next_expiry(lots: Iterable[Lot]) -> dt.datetime | None:
    """When the first of these lots dies."""
    return min((lot.expires_at for lot in lots if lot.expires_at is not None), default=None)
