"""Fake payments: what Stripe would have told, settled by the code that real events come to.

No Stripe is asked and no event is stored. Use the offline Stripe (`src.offline_stripe`) to test
checkout pages and webhooks.
"""

import uuid
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.models.stripe_reversal import ReversalKind
from src.common.models.transaction import Transaction
from src.common.models.user import User
from src.common.packages import Package
from src.common.purchases.money_back import record_reversal
from src.common.purchases.operations import PurchaseStatus, settle_payment
from src.common.purchases.reversals import Reversal
from src.common.purchases.rules import Payment, Terms

_ENV = "testing"
_PACKAGE = "testing"


@dataclass(frozen=True)
class FakePayment:
    """A payment that was credited."""

    transaction_id: uuid.UUID
    user_id: uuid.UUID
    stripe_session_id: str
    payment_intent_id: str
    credits: int
    amount_cents: int
    currency: str


@dataclass(frozen=True)
class FakeRefund:
    """Money that went back to a customer."""

    refund_id: str
    payment: FakePayment
    amount_cents: int


@dataclass(frozen=True)
class FakeDispute:
    """Money that a customer's bank has taken back."""

    dispute_id: str
    payment: FakePayment
    amount_cents: int


def pay(
    session: Session,
    user: User | uuid.UUID,
    credits: int = 500,  # noqa: A002  as the columns are called
    amount_cents: int = 500,
    *,
    currency: str = "usd",
) -> FakePayment:
    """Credit a purchase as if the user had paid for it with Stripe.

    Args:
        session: In a database transaction of the caller's; it is not committed.
        user: The user, or their `user_id`.
        credits: What was bought, 1 or more.
        amount_cents: What was paid, 1 or more, in the smallest unit of `currency`.
        currency: ISO 4217, in lower case.

    Raises:
        ValueError: The payment is one that would not be credited; the message says why. Nothing was
            credited, and `unmatched_payments` has a row as after a real one.
    """
    user_id = user.user_id if isinstance(user, User) else user
    name = uuid.uuid4().hex
    package = Package(
        package_id=_PACKAGE,
        name="Testing",
        credits=credits,
        price_cents=amount_cents,
        currency=currency,
    )
    payment = Payment(
        stripe_session_id=f"cs_test_{name}",
        livemode=False,
        mode="payment",
        payment_status="paid",
        payment_intent_id=f"pi_{name}",
        currency=currency,
        amount_subtotal_cents=amount_cents,
        amount_total_cents=amount_cents,
        env=_ENV,
        user_id=user_id,
        package_id=_PACKAGE,
        credits=str(credits),
    )
    outcome = settle_payment(
        session, payment, Terms(env=_ENV, packages=[package]), cause=f"evt_{name}"
    )
    if outcome.status is not PurchaseStatus.CREDITED:
        raise ValueError(f"The payment is not credited: {outcome.reason}")
    transaction_id = session.scalars(
        select(Transaction.transaction_id).where(
            Transaction.stripe_session_id == payment.stripe_session_id
        )
    ).one()
    return FakePayment(
        transaction_id,
        user_id,
        payment.stripe_session_id,
        f"pi_{name}",
        credits,
        amount_cents,
        currency,
    )


def refund(session: Session, payment: FakePayment, amount_cents: int | None = None) -> FakeRefund:
    """Refund a payment, or a part of it: the credits of that share are taken back.

    `amount_cents` is in the smallest unit of the payment's currency; None is all that was paid.
    """
    amount = payment.amount_cents if amount_cents is None else amount_cents
    made = FakeRefund(f"re_{uuid.uuid4().hex}", payment, amount)
    _tell(session, payment, made.refund_id, ReversalKind.REFUND, "succeeded", amount)
    return made


def fail_refund(session: Session, refund: FakeRefund) -> None:
    """Let a refund fail after all: its credits come back."""
    told = refund.refund_id, ReversalKind.REFUND, "failed", refund.amount_cents
    _tell(session, refund.payment, *told)


def dispute(session: Session, payment: FakePayment, amount_cents: int | None = None) -> FakeDispute:
    """Dispute a payment, or a part of it: the funds are withdrawn, and the credits taken back.

    `amount_cents` is in the smallest unit of the payment's currency; None is all that was paid.
    """
    amount = payment.amount_cents if amount_cents is None else amount_cents
    made = FakeDispute(f"dp_{uuid.uuid4().hex}", payment, amount)
    _tell(session, payment, made.dispute_id, ReversalKind.DISPUTE, "withdrawn", amount)
    return made


def win_dispute(session: Session, dispute: FakeDispute) -> None:
    """Let the shop win a dispute: the funds are reinstated, and the credits come back."""
    told = dispute.dispute_id, ReversalKind.DISPUTE, "reinstated", dispute.amount_cents
    _tell(session, dispute.payment, *told)


def _tell(
    session: Session,
    payment: FakePayment,
    reversal_id: str,
    kind: ReversalKind,
    status: str,
    amount_cents: int,
) -> None:
    reversal = Reversal(
        livemode=False,
        reversal_id=reversal_id,
        kind=kind,
        status=status,
        amount_cents=amount_cents,
        currency=payment.currency,
        payment_intent_id=payment.payment_intent_id,
    )
    record_reversal(session, reversal)
