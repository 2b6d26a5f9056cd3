"""Payments that one person credits by hand: what counts, and what is refused."""

import datetime as dt

import pytest
from sqlalchemy.orm import Session

from src.common.approvals.operations import Asked, execute_or_ask
from src.common.approvals.payments import resolve
from src.common.approvals.rules import Credited, Limits, credits_beyond_price
from src.common.credits.domain.commands import Result
from src.common.exceptions import Invalid
from src.common.models.user import User
from src.common.packages import DEFAULT_PACKAGES
from src.common.purchases.operations import settle_payment
from src.common.purchases.resolutions import Ruling
from src.common.stripe.wire import CheckoutSession
from tests.approvals.requests import ADA, GRACE, a_grant
from tests.credits.books import booked_balance, make_user
from tests.models.examples import a_transaction
from tests.purchases.lives import TERMS
from tests.stripe.payments import make_session

LIMITS = Limits(
    credits_above=100,
    refund_cents_above=0,
    lifetime=dt.timedelta(days=1),
    packages=DEFAULT_PACKAGES,
)


@pytest.mark.parametrize(
    ("paid_cents", "currency", "livemode", "beyond"),
    [
        (500, "usd", True, 100),
        (499, "usd", True, 600),
        (900, "usd", True, 0),
        (900, "jpy", True, 600),
        (900, "usd", False, 600),
        (None, "usd", True, 600),
        (0, "usd", True, 600),
    ],
)
def test_what_is_beyond_the_price(
    paid_cents: int | None, currency: str, *, livemode: bool, beyond: int
) -> None:
    """Of 600 credits, where real money sells: what only somebody says was paid buys nothing."""
    limits = Limits(0, 0, dt.timedelta(days=1), DEFAULT_PACKAGES, is_live=True)
    credited = Credited(credits=600, paid_cents=paid_cents, currency=currency, livemode=livemode)
    assert credits_beyond_price(credited, limits) == beyond


@pytest.fixture
def user(db: Session) -> User:
    """A user without credits."""
    return make_user(db)


def unmatched(db: Session, user: User) -> str:
    """A payment of 5.00 USD for no package that we sell; its name."""
    session = make_session(user, metadata={"package_id": "501"})
    payment = CheckoutSession.model_validate(session).as_payment()
    settle_payment(db, payment, TERMS, cause="evt_1")
    return payment.stripe_session_id


def credit(
    db: Session, name: str, number: int | None, limits: Limits | None = LIMITS, actor: str = ADA
) -> bool:
    """Whether it may be credited so."""
    try:
        with db.begin_nested():
            resolve(
                db, name, resolution="x", actor=actor, ruling=Ruling(credits=number), limits=limits
            )
    except Invalid as refused:
        if refused.error_type != "CONSENT_NEEDED":
            raise
        return False
    return True


def test_gifts_and_payments_count_together(db: Session, user: User) -> None:
    """Whichever is first; another person's do not count, nor does what the money buys."""
    first, second, third = (unmatched(db, user) for _ in range(3))
    assert isinstance(execute_or_ask(db, a_grant(user.user_id, 60), LIMITS), Result)
    assert not credit(db, first, 541)
    assert credit(db, first, 540)
    assert isinstance(execute_or_ask(db, a_grant(user.user_id, 1), LIMITS), Asked)
    assert not credit(db, second, 501)
    assert credit(db, second, 600, actor=GRACE)
    assert credit(db, third, 500)
    assert booked_balance(db, user.user_id) == 60 + 540 + 600 + 500


def test_without_limits_anybody_credits_what_they_say(db: Session, user: User) -> None:
    """A developer alone has nobody to ask."""
    assert credit(db, unmatched(db, user), 50_000, limits=None)


def test_what_is_closed_gives_nothing(db: Session, user: User) -> None:
    """And takes nobody."""
    row, purchase = resolve(
        db, unmatched(db, user), resolution="x", actor=ADA, limits=Limits(0, 0, LIMITS.lifetime)
    )
    assert (row.status, purchase) == ("resolved", None)


def test_what_application_code_wrote_is_credited_as_it_is(db: Session, user: User) -> None:
    """The number is no decision of whoever settles it."""
    bought = a_transaction(user_id=user.user_id, credits_added=5_000, amount_paid_cents=1)
    db.add(bought)
    db.flush()
    assert credit(db, bought.stripe_session_id, None)
