"""What somebody decides about an unmatched payment holds, whatever comes and changes afterwards."""

import uuid
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import AMOUNT_MAX
from src.common.exceptions import Conflict, ExceptionWithErrorType, Invalid, NotFound
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.models.user import User
from src.common.purchases.operations import PurchaseStatus, settle_payment
from src.common.purchases.resolutions import Ruling, resolve
from src.common.purchases.rules import Reason, Terms
from src.common.purchases.unmatched import open_unmatched_payments
from src.common.stripe.inbox import apply
from src.common.stripe.lookup import Facts
from src.common.stripe.wire import CheckoutSession, PaymentIntent
from tests.credits.books import booked_balance, check_books
from tests.models.examples import a_user
from tests.purchases.lives import TERMS, refund
from tests.purchases.test_reasons import WRONG, purchase_of
from tests.stripe.payments import STARTER, make_session

LATE = uuid.UUID(int=7)
"""A user who signs in only after the payment."""
PAID = [
    name
    for name, (_, changes) in WRONG.items()
    if changes.get("mode", "payment") not in ("subscription", "setup")
    and changes.get("payment_status", "paid") in ("paid", "no_payment_required")
]


@pytest.fixture
def user(db: Session) -> User:
    """A user without credits."""
    person = a_user()
    db.add(person)
    db.commit()
    return person


def settle(db: Session, session: dict[str, Any], terms: Terms = TERMS) -> PurchaseStatus:
    """Settle the payment of a session."""
    payment = CheckoutSession.model_validate(session).as_payment()
    outcome = settle_payment(db, payment, terms, cause="evt_1")
    db.commit()
    return outcome.status


def decide(db: Session, name: str, ruling: Ruling | None = None) -> Transaction | None:
    """Resolve it, as support does."""
    _, purchase = resolve(db, name, resolution="looked at", actor="system:cli:ada", ruling=ruling)
    db.commit()
    return purchase


def everything_comes_right(db: Session, wrong: dict[str, Any], user: User) -> None:
    """The user is there, settings fit, and the payment is told anew, as its session and alone."""
    if db.get(User, LATE) is None:
        db.add(a_user(user_id=LATE))
    right = make_session(user, id=wrong["id"], payment_intent=wrong["payment_intent"])
    settle(db, right)
    settle(db, {**right, "livemode": True}, replace(TERMS, livemode=None))
    settle(db, wrong, replace(TERMS, env=wrong["metadata"]["env"], livemode=None))
    bare = PaymentIntent(
        id=wrong["payment_intent"],
        livemode=False,
        status="succeeded",
        amount=500,
        amount_received=500,
        currency="usd",
        metadata=right["metadata"],
    ).as_payment()
    settle_payment(db, bare, TERMS, cause="evt_2")
    db.commit()


@pytest.mark.parametrize("changes", [each for _, each in WRONG.values()], ids=WRONG.keys())
def test_nothing_automatic_credits_what_somebody_resolved(
    db: Session, user: User, changes: dict[str, Any]
) -> None:
    """Whatever was its reason, whatever is told later, by whichever of its objects."""
    told: dict[str, Any] = {"payment_intent": "pi_1", **changes}
    wrong = make_session(user, **told)
    assert settle(db, wrong) is PurchaseStatus.UNMATCHED
    decide(db, wrong["id"])
    everything_comes_right(db, wrong, user)
    assert db.scalars(select(Transaction)).all() == []
    assert open_unmatched_payments(db, limit=10) == []
    assert booked_balance(db, user.user_id) == 0


def test_every_other_reason_is_settled_too(db: Session, user: User) -> None:
    """Those that need rows, orders or settings of their own."""
    required, full, written = (make_session(user, payment_intent=f"pi_{n}") for n in range(3))
    assert settle(db, required, replace(TERMS, requires_order=True)) is PurchaseStatus.UNMATCHED
    user.credits_balance = AMOUNT_MAX
    db.commit()
    assert settle(db, full) is PurchaseStatus.UNMATCHED
    user.credits_balance = 0
    db.commit()
    db.add(purchase_of(written, user))
    db.commit()
    assert settle(db, written) is PurchaseStatus.UNMATCHED
    reasons = {row.reason for row in open_unmatched_payments(db, limit=10)}
    assert reasons == {"ORDER_REQUIRED", "BALANCE_LIMIT_EXCEEDED", "TRANSACTION_WITHOUT_CREDIT"}
    for session in (required, full, written):
        decide(db, session["id"])
        everything_comes_right(db, session, user)
    assert booked_balance(db, user.user_id) == 0
    assert open_unmatched_payments(db, limit=10) == []


@pytest.mark.parametrize("name", PAID)
def test_a_person_may_credit_whatever_money_came_for(db: Session, user: User, name: str) -> None:
    """It is a purchase then: told again it is the same, and a refund takes its credits back."""
    told: dict[str, Any] = {"payment_intent": "pi_x", **WRONG[name][1]}
    wrong = make_session(user, **told)
    settle(db, wrong)
    amount_cents = 500 if wrong["amount_total"] is None else None
    currency = "usd" if wrong["currency"] is None else None
    ruling = Ruling(user.user_id, 500, amount_cents, currency)
    purchase = decide(db, wrong["id"], ruling)
    assert purchase is not None
    assert (purchase.stripe_session_id, purchase.payment_intent_id) == (wrong["id"], "pi_x")
    paid = 500 if wrong["amount_total"] is None else wrong["amount_total"]
    assert (purchase.amount_paid_cents, purchase.livemode) == (paid, wrong["livemode"])
    assert booked_balance(db, user.user_id) == 500
    everything_comes_right(db, wrong, user)
    assert booked_balance(db, user.user_id) == 500
    assert open_unmatched_payments(db, limit=10) == []
    if paid and purchase.currency == "usd" and not purchase.livemode:
        apply(db, Facts(reversals=(refund("x", "succeeded", paid),)), TERMS, cause="evt_3")
        assert booked_balance(db, user.user_id) == 0
    check_books(db)


@pytest.mark.parametrize("name", sorted(set(WRONG) - set(PAID)))
def test_nobody_credits_money_that_did_not_come(db: Session, user: User, name: str) -> None:
    """Unpaid, or a subscription's session, whose money comes with its invoice."""
    wrong = make_session(user, **WRONG[name][1])
    settle(db, wrong)
    with pytest.raises(Conflict, match="only money that came"):
        decide(db, wrong["id"], Ruling(user.user_id, 500))
    assert len(open_unmatched_payments(db, limit=10)) == 1


def test_what_the_payment_says_is_the_default(db: Session) -> None:
    """Its user, who has come meanwhile, and the credits it promises; a full balance is refused."""
    session = make_session(LATE)
    settle(db, session)
    with pytest.raises(NotFound, match=str(LATE)):
        decide(db, session["id"], Ruling())
    db.rollback()
    db.add(a_user(user_id=LATE, credits_balance=AMOUNT_MAX))
    db.commit()
    with pytest.raises(Invalid) as full:
        decide(db, session["id"], Ruling())
    assert full.value.error_type == "BALANCE_LIMIT_EXCEEDED"
    db.rollback()
    db.get_one(User, LATE).credits_balance = 0
    db.commit()
    decide(db, session["id"], Ruling())
    assert booked_balance(db, LATE) == STARTER.credits
    assert settle(db, session) is PurchaseStatus.ALREADY_CREDITED


@pytest.mark.parametrize(
    ("changes", "ruling", "field"),
    [
        ({"metadata": {"user_id": ""}}, Ruling(credits=500), "user"),
        ({"metadata": {"credits": "many", "env": "prod"}}, Ruling(), "credits"),
        ({"metadata": {"credits": "99999999999"}}, Ruling(), "credits"),
        ({"amount_subtotal": None, "amount_total": None}, Ruling(), "amount_cents"),
        ({"currency": None}, Ruling(), "currency"),
        ({"currency": "eur"}, Ruling(currency="usd"), "currency"),
        ({"currency": "eur"}, Ruling(amount_cents=1), "amount_cents"),
    ],
)
def test_what_nobody_says_is_asked_for_and_what_stripe_says_stands(
    db: Session, user: User, changes: dict[str, Any], ruling: Ruling, field: str
) -> None:
    """The error names the field; nothing is done."""
    session = make_session(user, **changes)
    settle(db, session)
    with pytest.raises(Invalid) as refused:
        decide(db, session["id"], ruling)
    assert refused.value.details["field"] == field
    assert db.scalars(select(Transaction)).all() == []


def test_a_payment_that_was_credited_is_not_credited_again(db: Session, user: User) -> None:
    """A conflict with a purchase that has its credits, and money back in another currency."""
    session = make_session(user, payment_intent="pi_x")
    settle(db, session)
    settle(db, {**session, "amount_total": 499})
    [row] = open_unmatched_payments(db, limit=10)
    assert row.reason == Reason.PAYMENT_CONFLICT
    with pytest.raises(Conflict, match="credited before"):
        decide(db, session["id"], Ruling())
    stray = replace(refund("x", "succeeded", 100), currency="eur")
    apply(db, Facts(reversals=(stray,)), TERMS, cause="evt_2")
    with pytest.raises(ExceptionWithErrorType) as refused:
        decide(db, stray.reversal_id, Ruling(user.user_id, 500, 100))
    assert refused.value.error_type == "NOT_CREDITABLE"
    assert booked_balance(db, user.user_id) == 500


def test_what_a_later_event_settled_is_not_settled_by_hand(db: Session, user: User) -> None:
    """A delayed payment that failed, and then was paid all the same: it is credited."""
    session = make_session(user)
    settle(db, {**session, "payment_status": "unpaid"})
    row = db.scalars(select(UnmatchedPayment)).one()
    assert settle(db, session) is PurchaseStatus.CREDITED
    db.refresh(row)
    assert (row.status, row.actor) == ("resolved", "system:webhook")
