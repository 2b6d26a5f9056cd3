"""Which snapshot of a refund or dispute is the newest, and what it says: pure.

Stripe tells in any order and repeats itself. The newest state of a reversal is the greatest
snapshot of it (what was moved, `rank`, amount, status), and the greatest of several is the same in
whatever order they come (docs/reference/states.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

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
    invoice_id: str | None = None
    """Of a credit note: its invoice, which names the payment until a PaymentIntent does."""
    stripe_account: str | None = None
    """The connected account it is of; None where it is our own."""
    request: str | None = None
    """The name of the request of ours that made it (`refunds.request_name`), of a refund."""
    moved_cents: int = 0
    """Of a dispute: all that was moved for it so far, out and back, in its own currency. It only
    grows, so a snapshot that tells of more is the later one, whatever its status."""

    @property
    def payment_name(self) -> str | None:
        """What the payment is called: by its PaymentIntent, else by its invoice."""
        return self.payment_intent_id or self.invoice_id


@dataclass(frozen=True)
class Movement:
    """A balance transaction of a dispute: money into (+) or out of (-) our Stripe balance."""

    amount_cents: int
    """In the smallest unit of the account's currency."""
    currency: str | None
    exchange_rate: Decimal | None
    """From the dispute's currency to the account's, where the two differ."""


@dataclass(frozen=True)
class DisputedFunds:
    """Where the funds of a dispute are, as one snapshot of it says."""

    status: str
    """`inquiry`, `withdrawn` or `reinstated`."""
    amount_cents: int
    """What the bank has, while that is anything; else what is disputed."""
    moved_cents: int


def disputed_funds(
    disputed_cents: int,
    currency: str,
    *,
    status: str | None,
    movements: Sequence[Movement] = (),
    told: str | None = None,
) -> DisputedFunds:
    """Where the funds of a dispute are: what was taken is what was moved, in its own currency.

    Nothing is taken of a dispute that was won, though its funds may come back a moment later. Where
    no movement is told the status says it, or the event: `told` is `withdrawn` or `reinstated`.

    Stripe withdraws the funds once more where a bank insists after we had won (`appeal_…`), and
    gives a part back, of a lost dispute too, where that part had been refunded before
    (docs.stripe.com/disputes/how-disputes-work).
    """
    # Where a rate is not told, the first withdrawal was of all that is disputed.
    first = abs(movements[0].amount_cents) if movements else 0
    rate = Fraction(first or 1, disputed_cents or 1)
    amounts = [_in_currency(each, disputed_cents, currency, rate) for each in movements]
    moved = sum(map(abs, amounts))
    there_and_back = 2 * disputed_cents
    if status == "won":
        return DisputedFunds("reinstated", disputed_cents, moved or there_and_back)
    if moved:
        taken = -sum(amounts)
        if taken > 0:
            return DisputedFunds("withdrawn", taken, moved)
        return DisputedFunds("reinstated", disputed_cents, moved)
    if told == "reinstated":
        return DisputedFunds("reinstated", disputed_cents, there_and_back)
    if told is not None or status == "lost":
        return DisputedFunds("withdrawn", disputed_cents, disputed_cents)
    return DisputedFunds("inquiry", disputed_cents, 0)


def _in_currency(movement: Movement, disputed_cents: int, currency: str, rate: Fraction) -> int:
    """A movement in the dispute's currency, by its own exchange rate, else by `rate`.

    Stripe rounds to the account's currency, so the way back may be off: all of the disputed amount
    is recognized as just that.
    """
    if movement.currency in (None, currency):
        return movement.amount_cents
    rate = Fraction(movement.exchange_rate) if movement.exchange_rate else rate
    if abs(disputed_cents * rate - abs(movement.amount_cents)) < 1:
        return disputed_cents if movement.amount_cents > 0 else -disputed_cents
    return round(movement.amount_cents / rate)


def supersedes(snapshot: Reversal, known: StripeReversal) -> bool:
    """Whether the snapshot is of a later state than what is known."""
    return _order(snapshot) > _order(known)


def _order(reversal: Reversal | StripeReversal) -> tuple[int, int, int, str]:
    rank = RANK_BY_STATUS[reversal.status]
    return reversal.moved_cents, rank, reversal.amount_cents, reversal.status
