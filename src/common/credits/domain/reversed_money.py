"""How much of a payment was refunded or disputed, from rows of `stripe_reversals`: pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from src.common.models.stripe_reversal import ReversalKind, StripeReversal

COUNTING = frozenset({"pending", "succeeded", "withdrawn", "issued"})
"""A refund counts until it fails, a dispute while some of its funds are with the bank."""


class ReversalRow(NamedTuple):
    """What counts of a row of `stripe_reversals`, as it was read without a model."""

    reversal_id: str
    kind: str
    status: str
    amount_cents: int
    currency: str


ReversedMoney = StripeReversal | ReversalRow


@dataclass(frozen=True)
class MoneyBack:
    """What went back of one payment, in the currency's smallest unit."""

    refunded_cents: int = 0
    disputed_cents: int = 0

    @property
    def total_cents(self) -> int:
        """Both together."""
        return self.refunded_cents + self.disputed_cents


def is_stray(reversal: ReversedMoney, currency: str) -> bool:
    """Whether a reversal is in another currency than its payment.

    Stripe gives a refund in its charge's currency, but a bank may dispute in another one. Rule 5
    takes r = min(reversed, paid), in one unit; at which rate another currency was exchanged is the
    bank's to say, and not always Stripe's to know. So nothing is converted: a stray reversal takes
    no credits, and while it counts it is an unmatched payment (CURRENCY_MISMATCH) that somebody
    resolves by hand.
    """
    return reversal.currency != currency


def money_back(reversals: Iterable[ReversedMoney], currency: str) -> MoneyBack:
    """What the reversals of one payment take back, in its currency; strays do not count."""
    counting = [
        each for each in reversals if each.status in COUNTING and not is_stray(each, currency)
    ]
    disputed = sum(each.amount_cents for each in counting if each.kind == ReversalKind.DISPUTE)
    return MoneyBack(sum(each.amount_cents for each in counting) - disputed, disputed)
