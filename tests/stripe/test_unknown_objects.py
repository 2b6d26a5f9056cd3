"""Objects that Stripe does not know for our key: all that can be done without its answer is done.

Deleted test data, or a key and a webhook secret of two accounts: the events are of one offline
Stripe, our key is of another, which has nothing.
"""

import json
import random
from dataclasses import replace
from typing import Any

import pytest
import stripe
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.models.stripe_event import StripeEvent
from src.common.models.stripe_reversal import StripeReversal
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.models.user import User
from src.common.stripe.inbox import EventAnswer
from src.offline_stripe import Delivery
from tests.credits.books import booked_balance, check_books, make_user
from tests.stripe.loop import Loop, only_purchase, start_loop
from tests.stripe.test_invoices import buy_with_invoice, credit


@pytest.fixture
def ours(db: Session) -> Loop:
    """Our side, whose key knows nothing of the other account."""
    assert db
    return start_loop("ours")


def received(db: Session, ours: Loop, deliveries: list[Delivery]) -> dict[str, EventAnswer]:
    """The answers by type; nothing failed, and nothing waits for another try."""
    answers = ours.deliver(deliveries)
    db.expire_all()
    failed = db.scalars(select(StripeEvent).where(StripeEvent.error.is_not(None))).all()
    assert [(each.type, each.error) for each in failed] == []
    assert EventAnswer.ACCEPTED not in answers
    return {each.event_type: answer for each, answer in zip(deliveries, answers, strict=True)}


@pytest.mark.parametrize(
    "first",
    ["payment_intent.succeeded", "charge.succeeded", "checkout.session.completed"],
)
def test_a_payment_is_credited_as_its_event_tells_it(
    db: Session, loop: Loop, ours: Loop, user: User, first: str
) -> None:
    """The PaymentIntent and the charge carry the metadata too; whichever comes first credits."""
    loop.offline.pay(loop.session_of(loop.buy(user.user_id)))
    events = sorted(loop.webhooks(), key=lambda each: each.event_type != first)
    assert received(db, ours, events)[first] is EventAnswer.PROCESSED
    assert booked_balance(db, user.user_id) == 500
    assert str(only_purchase(db).payment_intent_id).startswith("pi_")
    assert db.scalars(select(UnmatchedPayment)).all() == []


def test_a_payment_told_by_itself_is_its_orders_session(
    db: Session, ours: Loop, user: User
) -> None:
    """First unpaid, then paid without another word of the session: one name, nothing left open."""
    page = ours.buy(user.user_id)  # the order is ours, and knows its session
    session_id = ours.session_of(page)
    ours.offline.pay(session_id, method="sepa")
    told = {each.event_type: each for each in ours.webhooks()}
    empty = start_loop("empty")
    assert received(db, empty, [told["checkout.session.completed"]]) == {
        "checkout.session.completed": EventAnswer.UNMATCHED
    }
    ours.offline.settle_payment(session_id)
    told = {each.event_type: each for each in ours.webhooks()}
    received(db, empty, [told["payment_intent.succeeded"]])
    assert only_purchase(db).stripe_session_id == session_id
    assert booked_balance(db, user.user_id) == 500
    row = db.scalars(select(UnmatchedPayment)).one()
    assert (row.stripe_object_id, row.status) == (session_id, "resolved")
    answers = received(db, empty, list(told.values()))
    assert EventAnswer.PROCESSED not in answers.values()


@pytest.mark.parametrize("seed", range(4))
def test_money_goes_back_in_any_order(db: Session, loop: Loop, ours: Loop, seed: int) -> None:
    """A refund and a dispute, before their payment or after it, once each."""
    user = make_user(db)
    session_id = loop.session_of(loop.buy(user.user_id))
    loop.offline.pay(session_id)
    loop.refund_at_stripe(session_id, 100)
    loop.offline.open_dispute(loop.charge_of(session_id), amount=150)
    events = loop.webhooks() * 2
    random.Random(seed).shuffle(events)  # noqa: S311  no secret
    received(db, ours, events)
    assert booked_balance(db, user.user_id) == 250
    purchase = only_purchase(db)
    assert (purchase.refunded_cents, purchase.disputed_cents) == (100, 150)
    check_books(db)


def test_a_charge_tells_its_refunds_where_its_version_does(
    db: Session, loop: Loop, ours: Loop, user: User
) -> None:
    """Before 2022-11-15 a charge had its refunds with it; without them their own events tell."""
    session_id = loop.session_of(loop.buy(user.user_id))
    loop.offline.pay(session_id)
    received(db, ours, loop.webhooks())
    loop.refund_at_stripe(session_id, 100)
    [told] = [each for each in loop.webhooks() if each.event_type == "charge.refunded"]
    assert received(db, ours, [told]) == {"charge.refunded": EventAnswer.IGNORED}
    charge = loop.offline.get(loop.charge_of(session_id))
    refund = dict(next(iter(loop.offline.account.all("refund"))))
    del refund["payment_intent"]  # as in 2018
    old = with_object(told, charge | {"refunds": {"object": "list", "data": [refund]}})
    assert received(db, ours, [old]) == {"charge.refunded": EventAnswer.PROCESSED}
    assert booked_balance(db, user.user_id) == 400


def with_object(delivery: Delivery, obj: dict[str, Any]) -> Delivery:
    """A new event of this type about another object."""
    event = json.loads(delivery.body)
    event |= {"id": "evt_" + event["id"][::-1], "data": {"object": obj}}
    return replace(delivery, event_id=event["id"], body=json.dumps(event).encode())


@pytest.mark.parametrize("seed", range(4))
def test_an_invoice_and_its_credit_note_find_each_other(
    db: Session, loop: Loop, ours: Loop, seed: int
) -> None:
    """The note knows its invoice only, and the session says which invoice is its own."""
    user = make_user(db)
    invoice, events = buy_with_invoice(loop, user)
    _, back = credit(loop, invoice, out_of_band_amount=200)
    told = [*events.values(), *back.values()] * 2
    random.Random(seed).shuffle(told)  # noqa: S311  no secret
    received(db, ours, told)
    assert booked_balance(db, user.user_id) == 300
    assert only_purchase(db).refunded_cents == 200
    waiting = select(UnmatchedPayment).where(UnmatchedPayment.status == "open")
    assert db.scalars(waiting).all() == []
    check_books(db)


def test_a_credit_note_learns_its_payment_from_whoever_may_ask(
    db: Session, loop: Loop, ours: Loop, user: User
) -> None:
    """Kept under its invoice first; the key that knows the invoice names the PaymentIntent."""
    invoice, events = buy_with_invoice(loop, user)
    _, back = credit(loop, invoice, out_of_band_amount=200)
    note = back["credit_note.created"]
    received(db, ours, [note])
    kept = db.scalars(select(StripeReversal)).one()
    assert (kept.payment_intent_id, kept.transaction_id) == (invoice, None)
    again = with_object(note, loop.offline.get(kept.reversal_id))
    received(db, loop, [again])
    db.refresh(kept)
    assert kept.payment_intent_id == loop.offline.get(str(events_session(events)))["payment_intent"]
    received(db, loop, [events["checkout.session.completed"]])
    assert booked_balance(db, user.user_id) == 300


def events_session(events: dict[str, Delivery]) -> str:
    """The Checkout Session that these events are about."""
    return str(json.loads(events["checkout.session.completed"].body)["data"]["object"]["id"])


def test_the_offline_stripe_refuses_filters_that_name_nothing(loop: Loop) -> None:
    """As Stripe does: 400, `resource_missing`, with the parameter's name."""
    client = loop.client.v1
    asked: list[tuple[Any, dict[str, Any]]] = [
        (client.refunds.list, {"charge": "ch_none"}),
        (client.refunds.list, {"payment_intent": "pi_none"}),
        (client.checkout.sessions.list, {"payment_intent": "pi_none"}),
        (client.invoice_payments.list, {"invoice": "in_none"}),
        (
            client.invoice_payments.list,
            {"payment": {"type": "payment_intent", "payment_intent": "pi_none"}},
        ),
        (client.payment_intents.list, {"customer": "cus_none"}),
        (client.disputes.list, {"charge": "ch_none"}),
        (client.credit_notes.list, {"invoice": "in_none"}),
    ]
    for method, parameters in asked:
        with pytest.raises(stripe.InvalidRequestError) as caught:
            method(parameters)
        assert (caught.value.http_status, caught.value.code) == (400, "resource_missing")
        assert caught.value.param == list(parameters.get("payment", parameters))[-1]
