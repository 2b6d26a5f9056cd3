"""Pure decisions about money back: which snapshot of a refund or dispute holds, what it counts.

Stripe tells in any order and repeats itself. The newest state of a reversal is the greatest
snapshot of it (`rank`, amount, status), and the greatest of several is the same in whatever order
they come (DESIGN §3).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from src.common.models.stripe_reversal import ReversalKind, StripeReversal

RANK_BY_STATUS = {
    "pending": 0,
    "succeeded": 1,
    "failed": 2,
    "canceled": 2,
    "inquiry": 0,
    "withdrawn": 1,
    "reinstated": 2,
    "issued": 0,
    "void": 1,
}
COUNTING = frozenset({"pending", "succeeded", "withdrawn", "issued"})
"""A refund counts until it fails, a dispute from funds withdrawn to funds reinstated."""


@dataclass(frozen=True)
class Reversal:
    """What Stripe says about one refund, dispute or credit note."""

    livemode: bool
    reversal_id: str
    kind: ReversalKind
    status: str
    amount_cents: int
    """What goes back; of a credit note only what no refund carries."""
    currency: str
    payment_intent_id: str | None
    stripe_session_id: str | None = None
    """The payment's Checkout Session where somebody looked it up: application code's own purchases
    know no PaymentIntent."""


@dataclass(frozen=True)
class MoneyBack:
    """What went back of one payment, in the currency's smallest unit."""

    refunded_cents: int = 0
    disputed_cents: int = 0

    @property
    def total_cents(self) -> int:
        """Both together."""
        return self.refunded_cents + self.disputed_cents


def supersedes(snapshot: Reversal, known: StripeReversal) -> bool:
    """Whether the snapshot is of a later state than what is known."""
    return _order(snapshot) > _order(known)


def money_back(reversals: Iterable[StripeReversal]) -> MoneyBack:
    """What the reversals of one payment take back."""
    counting = [each for each in reversals if each.status in COUNTING]
    disputed = sum(each.amount_cents for each in counting if each.kind == ReversalKind.DISPUTE)
    return MoneyBack(sum(each.amount_cents for each in counting) - disputed, disputed)


def _order(reversal: Reversal | StripeReversal) -> tuple[int, int, str]:
    return RANK_BY_STATUS[reversal.status], reversal.amount_cents, reversal.status
