"""A payment's timeline has all that happened with it, in order, by whatever name it has."""

import datetime as dt
import uuid
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common.exceptions import ExceptionWithErrorType
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.stripe_event import StripeEvent
from src.common.models.stripe_reversal import StripeReversal
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.models.user import User
from src.common.purchases.resolutions import resolve
from src.common.purchases.timeline import PaymentTimeline, Step, StepKind, payment_timeline
from tests.credits.test_balance_history import statements_of
from tests.models.examples import a_user
from tests.stripe.loop import Loop, only_purchase, start_loop

STATEMENTS_MAX = 12


@pytest.fixture
def loop(db: Session) -> Loop:
    """Our side and Stripe's, both empty."""
    assert db
    return start_loop()


@pytest.fixture
def user(db: Session) -> User:
    """A user without credits."""
    person = a_user()
    db.add(person)
    db.commit()
    return person


def kinds(timeline: PaymentTimeline) -> list[tuple[str, str]]:
    """What happened, in order; events by their type."""
    return [(str(step.kind), step.what) for step in timeline.steps]


def of(timeline: PaymentTimeline, kind: StepKind) -> list[Step]:
    """The steps of a kind."""
    return [step for step in timeline.steps if step.kind is kind]


def test_a_payment_is_told_from_its_order_to_its_refund(
    db: Session, loop: Loop, user: User
) -> None:
    """By whom, how it stands, what it moved; the same by every name that it has."""
    session_id = loop.session_of(loop.buy(user.user_id))
    loop.offline.pay(session_id)
    loop.deliver(loop.webhooks())
    purchase = only_purchase(db)
    loop.refund(purchase, 200)
    loop.deliver(loop.webhooks())
    told = payment_timeline(db, str(purchase.transaction_id))
    assert [step.at for step in told.steps] == sorted(step.at for step in told.steps)
    assert told.user_id == user.user_id
    [order] = of(told, StepKind.ORDER)
    assert told.order is not None
    assert (order.name, order.status) == (str(told.order.order_id), "paid")
    assert (order.actor, order.credits, order.amount_cents, order.currency) == (
        *(f"user:{user.user_id}", 500, 500, "usd"),
    )
    [bought] = of(told, StepKind.PURCHASE)
    assert (bought.what, bought.status, bought.amount_cents) == ("500", "partly_refunded", 500)
    assert [(step.what, step.credits) for step in of(told, StepKind.ENTRY)] == [
        ("grant", 500),
        ("clawback", -200),
    ]
    [asked] = of(told, StepKind.REFUND_REQUEST)
    assert (asked.actor, asked.status, asked.amount_cents) == ("system:tests", "accepted", 200)
    [refund] = of(told, StepKind.REVERSAL)
    assert (refund.name, refund.what, refund.amount_cents) == (asked.name, "refund", 200)
    events = of(told, StepKind.EVENT)
    types = {step.what for step in events}
    assert {"checkout.session.completed", "refund.created", "charge.refunded"} <= types
    assert {step.actor for step in events} == {"stripe"}
    assert all(step.happened_at is not None for step in events)
    names = [session_id, purchase.payment_intent_id, order.name, refund.name]
    for name in names:
        assert kinds(payment_timeline(db, str(name))) == kinds(told), name


def test_an_order_that_nobody_paid_has_a_timeline(db: Session, loop: Loop, user: User) -> None:
    """By the order's id and by its session's; there is no purchase."""
    session_id = loop.session_of(loop.buy(user.user_id))
    order = db.query(CheckoutOrder).one()
    for name in (session_id, str(order.order_id)):
        told = payment_timeline(db, name)
        assert (told.purchase, told.user_id, kinds(told)) == (
            *(None, user.user_id),
            [("order", "500")],
        )


def test_a_payment_that_credited_nobody_says_why_and_what_was_done(
    db: Session, loop: Loop, user: User
) -> None:
    """Its reason, the money that came back of it, and who resolved it, by all of its names."""
    page = loop.buy(user.user_id)
    db.execute(text("UPDATE checkout_orders SET amount_cents = 499"))
    session_id = loop.session_of(page)
    loop.offline.pay(session_id)
    loop.deliver(loop.webhooks())
    loop.refund_at_stripe(session_id, 500)
    loop.deliver(loop.webhooks())
    resolve(db, session_id, resolution="paid back <b>by hand</b>", actor="user:me")
    told = payment_timeline(db, session_id)
    assert told.purchase is None
    [row] = told.unmatched
    [noted] = of(told, StepKind.UNMATCHED)
    assert (noted.what, noted.note, noted.status) == (row.reason, row.explanation, "resolved")
    [resolved] = of(told, StepKind.RESOLUTION)
    assert (resolved.actor, resolved.note) == ("user:me", "paid back <b>by hand</b>")
    [refund] = of(told, StepKind.REVERSAL)
    assert refund.amount_cents == 500
    paid = loop.offline.get(session_id)["payment_intent"]
    for name in (str(paid), refund.name):
        assert kinds(payment_timeline(db, name)) == kinds(told), name


def test_a_timeline_takes_as_many_statements_whatever_happened(
    db: Session, loop: Loop, user: User
) -> None:
    """A dozen at most, with many refunds as with none."""
    session_id = loop.session_of(loop.buy(user.user_id))
    loop.offline.pay(session_id)
    loop.deliver(loop.webhooks())
    purchase = only_purchase(db)
    before = statements_of(db, lambda: payment_timeline(db, session_id))
    for number in range(4):
        loop.refund(purchase, 50, key=f"r{number}")
    loop.deliver(loop.webhooks())
    assert len(of(payment_timeline(db, session_id), StepKind.REVERSAL)) == 4
    db.expire_all()
    assert before <= statements_of(db, lambda: payment_timeline(db, session_id)) <= STATEMENTS_MAX


@pytest.mark.parametrize(
    "body", [None, b"", b"[]", b"{", b'{"data": {"object": {"charge": 7}}}', b"\xff"]
)
def test_an_event_whose_body_says_nothing_is_a_step_all_the_same(
    db: Session, body: bytes | None
) -> None:
    """Dropped, broken, or without a charge."""
    now = dt.datetime.now(dt.UTC)
    db.add(
        StripeEvent(
            livemode=False,
            event_id="evt_1",
            type="payment_intent.canceled",
            object_id="pi_alone",
            stripe_created_at=now,
            body=body,
            status="dead",
            error="<script>",
        )
    )
    db.flush()
    [step] = payment_timeline(db, "pi_alone").steps
    assert (step.name, step.status, step.note) == ("evt_1", "dead", "<script>")


@pytest.mark.parametrize(
    ("name", "error_type"),
    [
        ("pi_nobody", "TRANSACTION_NOT_FOUND"),
        (str(uuid.UUID(int=7)), "TRANSACTION_NOT_FOUND"),
        ("", "TRANSACTION_NOT_FOUND"),
        ("ch_1", "VALIDATION_ERROR"),
        ("a\x00", "VALIDATION_ERROR"),
    ],
)
def test_what_nobody_knows_has_no_timeline(db: Session, name: str, error_type: str) -> None:
    """And what can be no name of ours is refused."""
    with pytest.raises(ExceptionWithErrorType) as refusal:
        payment_timeline(db, name)
    assert refusal.value.error_type == error_type


@pytest.mark.parametrize(
    ("table", "index"),
    [
        (UnmatchedPayment, "ix_unmatched_payments_payment_intent_id"),
        (StripeReversal, "ix_stripe_reversals_payment_intent_id"),
        (StripeEvent, "ix_stripe_events_object_id"),
    ],
)
def test_what_is_looked_for_by_name_has_an_index(table: Any, index: str) -> None:
    """However many events and payments there are."""
    assert index in {each.name for each in table.__table__.indexes}
