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
    request: str | None = None
    """The name of the request of ours that made it (`refunds.request_name`), of a refund."""


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


def is_stray(reversal: StripeReversal, currency: str) -> bool:
    """Whether a reversal is in another currency than its payment.

    Stripe gives a refund in its charge's currency, but a bank may dispute in another one. Rule 5
    takes r = min(reversed, paid), in one unit; at which rate another currency was exchanged is the
    bank's to say, and not always Stripe's to know. So nothing is converted: a stray reversal takes
    no credits, and while it counts it is an unmatched payment (CURRENCY_MISMATCH) that somebody
    resolves by hand.
    """
    return reversal.currency != currency


def money_back(reversals: Iterable[StripeReversal], currency: str) -> MoneyBack:
    """What the reversals of one payment take back, in its currency; strays do not count."""
    counting = [
        each for each in reversals if each.status in COUNTING and not is_stray(each, currency)
    ]
    disputed = sum(each.amount_cents for each in counting if each.kind == ReversalKind.DISPUTE)
    return MoneyBack(sum(each.amount_cents for each in counting) - disputed, disputed)


def _order(reversal: Reversal | StripeReversal) -> tuple[int, int, str]:
    return RANK_BY_STATUS[reversal.status], reversal.amount_cents, reversal.status
