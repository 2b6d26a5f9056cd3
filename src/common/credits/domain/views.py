"""What reading the ledger answers. Numbers are whole credits, instants are in UTC.

What has expired counts as expired, whether or not that is booked (`rules.settle`).
"""

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
    """Credits that may be spent, 0 or more; the sum of what is left in `lots`."""
    held: int
    """Credits in open holds, 0 or more. They are not in the balance, and may come back."""
    debt: int | None
    """Credits owed for money that went back, 0 or more; what comes in next repays them. None as of
    a past instant: it is not kept what was owed when."""
    lots: Sequence[Lot]
    """Lots with something left, the one that is spent first in front."""
    next_expiry: dt.datetime | None
    """When the first of these lots expires; None where none does."""
    version: int
    """The `seq` of the newest entry booked; 0 before the first."""


@dataclass(frozen=True, kw_only=True)
class GrantedPurchase:
    """What somebody paid for the credits of a grant."""

    transaction_id: uuid.UUID
    stripe_session_id: str
    package_id: str | None
    """None where the payment belongs to no order of ours."""
    amount_paid_cents: int
    """In the smallest unit of `currency`."""
    currency: str
    """ISO 4217, in lower case."""


@dataclass(frozen=True, kw_only=True)
class HistoryEntry:
    """An entry with its lines and the caller's metadata."""

    seq: int
    """Its number in the user's journal: 1, 2, 3 …"""
    kind: str
    """A value of `EntryKind`."""
    amount: int
    """Credits into (+) or out of (-) the balance."""
    balance_after: int
    """The balance right after this entry."""
    captured: int | None
    """Credits it kept of a hold; None where it acts on none."""
    related_seq: int | None
    """The hold it acts on; of a clawback, reinstatement or debt's repayment the payment's lot; of a
    reversal the entry it undoes."""
    idempotency_key: str
    reference: str | None
    """What the caller says it was for; of an adjustment or a reversal its reason."""
    actor: str
    effective_at: dt.datetime
    """When it counts."""
    created_at: dt.datetime
    """When it was booked: later than `effective_at` for what expired in between."""
    postings: Sequence[Posting]
    """Which lot gave or took how much; they add up to `amount`."""
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
    """Credits still owed, 1 or more."""
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
    """When the first of these lots expires."""
    return min((lot.expires_at for lot in lots if lot.expires_at is not None), default=None)
