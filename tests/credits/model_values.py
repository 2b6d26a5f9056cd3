"""What the ledger's model is made of (`model.py`)."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field


class Refused(Exception):
    """The command was not done; `args[0]` is the error type."""


@dataclass(frozen=True)
class Answer:
    """What a caller is told."""

    seq: int
    kind: str
    amount: int
    captured: int | None
    balance: int
    created_at: dt.datetime
    expires_at: dt.datetime | None
    replayed: bool
    spent: int | None = None
    """Of what is taken back: how much had been used before."""


@dataclass(frozen=True)
class Line:
    """A line of the journal."""

    kind: str
    amount: int
    captured: int | None
    related_seq: int | None
    effective_at: dt.datetime
    lots: dict[int, int]
    """What each lot got or gave."""


@dataclass
class ModelLot:
    """Credits that came in together."""

    seq: int
    priority: int
    dies_at: dt.datetime
    left: int
    written: int = 0
    """What the journal says is left; the next line is about the difference."""
    taken: int = 0
    """How many of its credits money back has, by clawbacks and repayments."""
    expired: int = 0

    @property
    def rank(self) -> tuple[int, dt.datetime, int]:
        """Rule 6."""
        return self.priority, self.dies_at, self.seq


@dataclass
class ModelHold:
    """Credits set aside; `credit_lots` names each one's lot, in the order they were taken."""

    seq: int
    credit_lots: Sequence[int]
    expires_at: dt.datetime
    captured: int = 0
    status: str = "open"
    kept: list[int] = field(default_factory=list[int])
    """Of which lot each captured credit is that nobody gave back."""


@dataclass(frozen=True)
class Payment:
    """Money that bought credits; some of it may have gone back."""

    name: str
    credits: int
    paid_cents: int
    lot: int | None
    """None where it was before the ledger: then the opening stands in."""


@dataclass(frozen=True)
class MoneyBack:
    """A refund, a dispute or a credit note, as far as Stripe has told."""

    name: str
    kind: str
    payment: str
    """The name of the person's payment, which may still be to come."""
    status: str
    cents: int
