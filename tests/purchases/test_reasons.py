"""Every reason not to credit: the payment is noted with it, and nobody gets anything."""

import uuid
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import AMOUNT_MAX
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.models.user import User
from src.common.purchases.operations import PurchaseStatus, settle_payment
from src.common.purchases.packages import PACKAGES, Package
from src.common.purchases.rules import Reason, Terms
from src.common.purchases.unmatched import count_open_unmatched_payments, open_unmatched_payments
from src.common.stripe.inbox import apply
from src.common.stripe.lookup import Facts
from src.common.stripe.wire import CheckoutSession
from tests.models.examples import a_user
from tests.purchases.lives import TERMS, refund
from tests.stripe.payments import STARTER, make_session

BASIC = PACKAGES[1]

WRONG: dict[str, tuple[Reason, dict[str, Any]]] = {
    "a subscription": (Reason.MODE_NOT_PAYMENT, {"mode": "subscription"}),
    "no mode": (Reason.MODE_NOT_PAYMENT, {"mode": None}),
    "a setup": (
        Reason.MODE_NOT_PAYMENT,
        {"mode": "setup", "payment_status": "no_payment_required"},
    ),
    "unpaid": (Reason.NOT_PAID, {"payment_status": "unpaid"}),
    "nothing to pay": (Reason.NOT_PAID, {"payment_status": "no_payment_required"}),
    "no payment status": (Reason.NOT_PAID, {"payment_status": None}),
    "a status of the future": (Reason.NOT_PAID, {"payment_status": "PAID"}),
    "another environment": (Reason.ENVIRONMENT_MISMATCH, {"metadata": {"env": "prod"}}),
    "the environment in capitals": (Reason.ENVIRONMENT_MISMATCH, {"metadata": {"env": "LOCAL"}}),
    "live money for a test key": (Reason.LIVEMODE_MISMATCH, {"livemode": True}),
    "an unknown user": (Reason.USER_UNKNOWN, {"metadata": {"user_id": str(uuid.UUID(int=7))}}),
    "no user": (Reason.USER_UNKNOWN, {"metadata": {"user_id": ""}}),
    "an e-mail for a user": (Reason.USER_UNKNOWN, {"metadata": {"user_id": "ada@example.com"}}),
    "an unknown order": (Reason.ORDER_UNKNOWN, {"metadata": {"order_id": str(uuid.UUID(int=7))}}),
    "an unknown package": (Reason.PACKAGE_UNKNOWN, {"metadata": {"package_id": "501"}}),
    "a package by name": (Reason.PACKAGE_UNKNOWN, {"metadata": {"package_id": "Starter"}}),
    "more credits": (Reason.CREDITS_MISMATCH, {"metadata": {"credits": "5000"}}),
    "credits that are no number": (Reason.CREDITS_MISMATCH, {"metadata": {"credits": "500.0"}}),
    "negative credits": (Reason.CREDITS_MISMATCH, {"metadata": {"credits": "-500"}}),
    "another currency": (Reason.CURRENCY_MISMATCH, {"currency": "jpy"}),
    "the currency in capitals": (Reason.CURRENCY_MISMATCH, {"currency": "USD"}),
    "no currency": (Reason.CURRENCY_MISMATCH, {"currency": None}),
    "a lower price": (Reason.AMOUNT_MISMATCH, {"amount_subtotal": 1, "amount_total": 1}),
    "a higher price": (Reason.AMOUNT_MISMATCH, {"amount_subtotal": 900, "amount_total": 900}),
    "no amounts": (Reason.AMOUNT_MISMATCH, {"amount_subtotal": None, "amount_total": None}),
    "a discount": (Reason.AMOUNT_MISMATCH, {"amount_total": 400}),
    "a tax": (Reason.AMOUNT_MISMATCH, {"amount_total": 595}),
    "a discount of everything": (Reason.AMOUNT_MISMATCH, {"amount_total": 0}),
    "another package's credits": (
        Reason.CREDITS_MISMATCH,
        {"metadata": {"package_id": BASIC.package_id}},
    ),
    "another package's price": (
        Reason.AMOUNT_MISMATCH,
        {"metadata": {"package_id": BASIC.package_id, "credits": str(BASIC.credits)}},
    ),
}


@pytest.fixture
def user(db: Session) -> User:
    """A user without credits."""
    person = a_user()
    db.add(person)
    db.commit()
    return person


def settle(
    db: Session, session: dict[str, Any], event_id: str = "evt_1"
) -> Reason | PurchaseStatus:
    """Settle the payment in test mode: why it was not credited, or what became of it."""
    payment = CheckoutSession.model_validate(session).as_payment()
    terms = Terms(env="local", livemode=False, packages=PACKAGES)
    outcome = settle_payment(db, payment, terms, cause=event_id)
    db.commit()
    return outcome.reason or outcome.status


def credited(db: Session) -> int:
    """All credits there are."""
    assert db.scalars(select(func.sum(User.credits_balance))).one() == (
        db.scalars(select(func.coalesce(func.sum(Transaction.credits_added), 0))).one()
    )
    return db.scalars(select(func.sum(User.credits_balance))).one() or 0


@pytest.mark.parametrize(("reason", "changes"), WRONG.values(), ids=WRONG.keys())
def test_a_payment_that_does_not_agree_is_noted_and_credits_nobody(
    db: Session, user: User, reason: Reason, changes: dict[str, Any]
) -> None:
    """The row names the reason, explains it in a sentence and holds what came."""
    session = make_session(user, STARTER, **changes)
    assert settle(db, session) == reason
    (row,) = open_unmatched_payments(db, limit=10)
    assert (row.reason, row.stripe_object_id, row.event_id) == (reason, session["id"], "evt_1")
    assert row.explanation
    assert row.details["amount_total_cents"] == session["amount_total"]
    assert row.details["payment_status"] == session["payment_status"]
    assert credited(db) == 0


def test_every_reason_is_tried() -> None:
    """A new reason must appear above, or below where it needs rows."""
    needing_rows = {
        Reason.ORDER_REQUIRED,
        Reason.ORDER_MISMATCH,
        Reason.BALANCE_LIMIT_EXCEEDED,
        Reason.PAYMENT_CONFLICT,
        Reason.TRANSACTION_WITHOUT_CREDIT,
    }
    assert {reason for reason, _ in WRONG.values()} | needing_rows == set(Reason)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.package_id)
def test_each_package_is_credited_at_its_price_only(
    db: Session, user: User, package: Package
) -> None:
    """A cent too few is refused, the price is credited."""
    cheap = {"amount_subtotal": package.price_cents - 1, "amount_total": package.price_cents - 1}
    assert settle(db, make_session(user, package, **cheap)) is Reason.AMOUNT_MISMATCH
    assert settle(db, make_session(user, package)) is PurchaseStatus.CREDITED
    assert credited(db) == package.credits


def test_a_balance_at_its_limit_takes_no_more(db: Session, user: User) -> None:
    """The 32-bit balance never overflows: the payment waits, with the reason."""
    user.credits_balance = AMOUNT_MAX - STARTER.credits + 1
    db.commit()
    assert settle(db, make_session(user)) is Reason.BALANCE_LIMIT_EXCEEDED
    db.refresh(user)
    assert user.credits_balance == AMOUNT_MAX - STARTER.credits + 1
    assert db.scalars(select(Transaction)).all() == []


def test_a_balance_may_reach_its_limit(db: Session, user: User) -> None:
    """The last credit that fits is credited."""
    user.credits_balance = AMOUNT_MAX - STARTER.credits
    db.commit()
    assert settle(db, make_session(user)) is PurchaseStatus.CREDITED
    db.refresh(user)
    assert user.credits_balance == AMOUNT_MAX


@pytest.mark.parametrize(
    "difference",
    [{"payment_intent": "pi_other"}, {"livemode": False, "package": BASIC}, {"another": "user"}],
    ids=["another PaymentIntent", "another package", "another user"],
)
def test_a_known_session_with_other_figures_is_a_conflict(
    db: Session, user: User, difference: dict[str, Any]
) -> None:
    """What was credited is compared: a second, different claim is noted, not believed."""
    session = make_session(user)
    assert settle(db, session) is PurchaseStatus.CREDITED
    claimant = user
    if difference.pop("another", None):
        claimant = a_user()
        db.add(claimant)
        db.commit()
    same = {"id": session["id"], "payment_intent": session["payment_intent"]}
    other = make_session(claimant, **{**same, **difference})
    assert settle(db, other) is Reason.PAYMENT_CONFLICT
    assert credited(db) == STARTER.credits
    assert settle(db, session) is PurchaseStatus.ALREADY_CREDITED


def purchase_of(session: dict[str, Any], user: User, name: str = "id") -> Transaction:
    """The row an application writes for the session by the document's own pattern."""
    return Transaction(
        user_id=user.user_id,
        stripe_session_id=session[name],
        amount_paid_cents=session["amount_total"],
        credits_added=STARTER.credits,
    )


def test_a_purchase_without_its_credits_is_no_credit(db: Session, user: User) -> None:
    """A row that application code wrote alone is noted, never answered as already credited."""
    session = make_session(user)
    db.add(purchase_of(session, user))
    db.commit()
    assert settle(db, session) is Reason.TRANSACTION_WITHOUT_CREDIT
    assert user.credits_balance == 0


@pytest.mark.parametrize("name", ["id", "payment_intent"])
def test_a_purchase_by_the_documents_pattern_counts_as_credited(
    db: Session, user: User, name: str
) -> None:
    """Balance and row in one database transaction are that purchase; the webhook adds nothing.

    Whichever of its Stripe objects application code called it by.
    """
    session = make_session(user)
    user.credits_balance += STARTER.credits
    db.add(purchase_of(session, user, name))
    db.commit()
    assert settle(db, session) is PurchaseStatus.ALREADY_CREDITED
    assert credited(db) == STARTER.credits


def test_a_refund_finds_a_purchase_that_is_called_by_its_payment(db: Session, user: User) -> None:
    """Application code noted the PaymentIntent where our session's id would be."""
    session = make_session(user, payment_intent="pi_x")
    user.credits_balance += STARTER.credits
    db.add(purchase_of(session, user, "payment_intent"))
    db.commit()
    apply(db, Facts(reversals=(refund("x", "succeeded", 200),)), TERMS, cause="evt_2")
    db.refresh(user)
    assert user.credits_balance == STARTER.credits - 200


def test_the_newest_event_renews_the_reason(db: Session, user: User) -> None:
    """One row a payment: it says what the newest event said."""
    session = make_session(user, payment_status="unpaid")
    settle(db, session)
    wrong = {**session, "payment_status": "paid", "currency": "eur"}
    settle(db, wrong, "evt_2")
    (row,) = open_unmatched_payments(db, limit=10)
    assert (row.reason, row.event_id) == ("CURRENCY_MISMATCH", "evt_2")
    assert count_open_unmatched_payments(db) == 1


def test_a_payment_somebody_resolved_stays_resolved(db: Session, user: User) -> None:
    """A copy of the event does not open it again, and does not change who resolved it."""
    session = make_session(user, currency="eur")
    settle(db, session)
    row = db.scalars(select(UnmatchedPayment)).one()
    row.status, row.resolution, row.actor = "resolved", "refunded by hand", "user:1"
    row.resolved_at = func.now()
    db.commit()
    settle(db, session, "evt_2")
    db.refresh(row)
    assert (row.status, row.actor, row.event_id) == ("resolved", "user:1", "evt_1")
    assert count_open_unmatched_payments(db) == 0


def test_the_oldest_unmatched_payment_comes_first(db: Session, user: User) -> None:
    """Who waited longest is looked at first; resolved ones are not listed."""
    sessions = [make_session(user, currency="eur") for _ in range(3)]
    for session in sessions:
        settle(db, session)
    rows = {row.stripe_object_id: row for row in db.scalars(select(UnmatchedPayment))}
    for position, session in enumerate(reversed(sessions)):
        rows[session["id"]].created_at = func.now() + func.make_interval(0, 0, 0, position)
    db.commit()
    listed = [row.stripe_object_id for row in open_unmatched_payments(db, limit=2)]
    assert listed == [session["id"] for session in sessions[:0:-1]]


SILENT: dict[str, dict[str, Any]] = {
    "2019, before currency, amounts and payment_status": {
        "currency": None,
        "amount_subtotal": None,
        "amount_total": None,
        "payment_status": None,
        "mode": None,
    },
    "no PaymentIntent yet": {"payment_intent": None},
    "no metadata": {"metadata": None},
}


@pytest.mark.parametrize("silence", SILENT.values(), ids=SILENT.keys())
def test_what_an_event_does_not_say_conflicts_with_nothing(
    db: Session, user: User, silence: dict[str, Any]
) -> None:
    """It comes after the payment was credited, whichever of its figures it lacks."""
    session = make_session(user)
    assert settle(db, session) is PurchaseStatus.CREDITED
    late = {**session, **silence}
    assert settle(db, late, "evt_2") is PurchaseStatus.ALREADY_CREDITED
    assert open_unmatched_payments(db, limit=10) == []
    other = {**late, "amount_total": 499}
    assert settle(db, other, "evt_3") is Reason.PAYMENT_CONFLICT, "what it says is compared"
