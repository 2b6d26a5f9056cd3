"""What Stripe says of payments and of money back, told to the ledger by the roads it takes."""

import uuid

from sqlalchemy.orm import Session

from src.common.credits.domain.commands import STRIPE_ACTOR, Grant
from src.common.credits.domain.own_commands import purchase
from src.common.models.stripe_reversal import ReversalKind
from src.common.packages import Package
from src.common.purchases.money_back import record_reversal
from src.common.purchases.operations import settle_payment
from src.common.purchases.reversals import Reversal
from src.common.purchases.rules import Payment, Terms
from tests.credits.model_values import MoneyBack

PACKAGES = (
    Package(package_id="few", name="Few", credits=3, price_cents=100),
    Package(package_id="some", name="Some", credits=40, price_cents=77),
    Package(package_id="many", name="Many", credits=80, price_cents=80),
)
_TERMS = Terms(env="tests", packages=PACKAGES)


def pay(
    session: Session, user_id: uuid.UUID, name: str, package: Package, *, livemode: bool = False
) -> None:
    """Somebody has paid: the payment is credited, unless it was."""
    payment = Payment(
        stripe_session_id=f"cs_{name}",
        livemode=livemode,
        mode="payment",
        payment_status="paid",
        payment_intent_id=name,
        currency=package.currency,
        amount_subtotal_cents=package.price_cents,
        amount_total_cents=package.price_cents,
        env=_TERMS.env,
        user_id=user_id,
        package_id=package.package_id,
        credits=str(package.credits),
    )
    settle_payment(session, payment, _TERMS, cause="evt_tests")


def tell(session: Session, said: MoneyBack, *, livemode: bool = False) -> None:
    """Some of a payment goes back, or no longer does."""
    reversal = Reversal(
        livemode=livemode,
        reversal_id=said.name,
        kind=ReversalKind(said.kind),
        status=said.status,
        amount_cents=said.cents,
        currency="usd",
        payment_intent_id=said.payment,
    )
    record_reversal(session, reversal)


def grant_of(user_id: uuid.UUID, package: Package) -> Grant:
    """The grant that a payment for this package is."""
    return purchase(
        user_id,
        package.credits,
        transaction_id=uuid.uuid4(),
        stripe_session_id=f"cs_{uuid.uuid4()}",
        actor=STRIPE_ACTOR,
    )
