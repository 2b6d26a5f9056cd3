"""Invoices and credit notes through the whole road: settled and taken back once, in any order."""

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from itertools import permutations
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.models.stripe_reversal import StripeReversal
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.models.user import User
from src.common.stripe.inbox import EventAnswer
from src.offline_stripe import Delivery
from tests.credits.books import booked_balance, check_books, make_user
from tests.purchases.lives import state_of
from tests.stripe.loop import Loop, only_purchase
from tests.stripe.payments import make_event

LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


def buy_with_invoice(loop: Loop, user: User) -> tuple[str, dict[str, Delivery]]:
    """A paid session that made an invoice too: the invoice, and the events by type."""
    price = {"currency": "usd", "unit_amount": 500, "product_data": {"name": "Starter"}}
    parameters: Any = {
        "mode": "payment",
        "customer": loop.client.v1.customers.create({}).id,
        "success_url": "https://example.com/thanks",
        "line_items": [{"quantity": 1, "price_data": price}],
        "invoice_creation": {"enabled": True},
        "metadata": {
            "user_id": str(user.user_id),
            "credits": "500",
            "package_id": "500",
            "env": "local",
        },
    }
    session = loop.client.v1.checkout.sessions.create(parameters)
    loop.offline.pay(session.id)
    return str(loop.offline.get(session.id)["invoice"]), by_type(loop.webhooks())


def by_type(deliveries: Iterable[Delivery]) -> dict[str, Delivery]:
    """The webhooks of an action, each by its type."""
    return {each.event_type: each for each in deliveries}


def credit(loop: Loop, invoice: str, **how: int) -> tuple[str, dict[str, Delivery]]:
    """A credit note of 200 cents: its id, and the events by type."""
    parameters: Any = {"invoice": invoice, "amount": 200, **how}
    note = loop.client.v1.credit_notes.create(parameters)
    return str(note.id), by_type(loop.webhooks())


def voided(loop: Loop, note_id: str) -> Delivery:
    """The note is void, which Stripe itself allows of open invoices only."""
    event = make_event(loop.offline.get(note_id) | {"status": "void"}, "credit_note.voided")
    body = json.dumps(event).encode()
    return Delivery("d", event["id"], event["type"], "http://test", body, {}, 1)


def doubled(deliveries: Sequence[Delivery]) -> list[Delivery]:
    """Each twice in a row, and then all of them again."""
    return [each for each in deliveries for _ in range(2)] + list(deliveries)


PAID = ("invoice.paid", "checkout.session.completed", "payment_intent.succeeded")


@pytest.mark.parametrize("order", list(permutations(PAID)))
def test_an_invoice_and_its_payment_are_one_purchase(
    db: Session, loop: Loop, user: User, order: tuple[str, ...]
) -> None:
    """Whichever tells first: one row that names session, PaymentIntent and invoice, one grant."""
    invoice, events = buy_with_invoice(loop, user)
    answers = loop.deliver(doubled([events[each] for each in order]))
    assert answers == [EventAnswer.PROCESSED, *[EventAnswer.ALREADY_PROCESSED] * 8]
    purchase = only_purchase(db)
    assert purchase.stripe_session_id.startswith("cs_")
    assert str(purchase.payment_intent_id).startswith("pi_")
    assert purchase.invoice_id == invoice
    assert booked_balance(db, user.user_id) == 500
    assert db.scalars(select(UnmatchedPayment)).all() == []
    check_books(db)


@pytest.mark.parametrize("first", ["invoice.paid", "payment_intent.succeeded"])
def test_an_invoice_that_no_page_of_ours_made_is_one_unmatched_payment(
    db: Session, loop: Loop, first: str
) -> None:
    """Its PaymentIntent and itself, doubled: one row under the invoice's id, nobody credited."""
    client = loop.client.v1
    customer = client.customers.create({}).id
    item: Any = {"customer": customer, "amount": 500, "currency": "usd"}
    client.invoice_items.create(item)
    invoice: Any = client.invoices.create(
        {"customer": customer, "pending_invoice_items_behavior": "include"}
    )
    client.invoices.pay(invoice.id, {"payment_method": "pm_card_visa"})
    events = by_type(loop.webhooks())
    both = [events.pop(first), *(events[each] for each in PAID if each in events)]
    assert set(loop.deliver(doubled(both))) == {EventAnswer.UNMATCHED}
    row = db.scalars(select(UnmatchedPayment)).one()
    assert (row.stripe_object_id, row.reason) == (invoice.id, "MODE_NOT_PAYMENT")


CREDITED = ("paid", "credit_note.created", "refund.created", "charge.refunded")


@pytest.mark.parametrize("order", list(permutations(CREDITED)))
def test_a_credit_note_that_a_refund_carries_takes_back_once(
    db: Session, loop: Loop, user: User, order: tuple[str, ...]
) -> None:
    """200 of 500 cents, told by three events, before the payment too: 200 credits go, once."""
    invoice, events = buy_with_invoice(loop, user)
    note_id, money_back = credit(loop, invoice, refund_amount=200)
    told = money_back | {"paid": events["invoice.paid"]}
    assert EventAnswer.ACCEPTED not in loop.deliver(doubled([told[each] for each in order]))
    assert booked_balance(db, user.user_id) == 300
    assert only_purchase(db).refunded_cents == 200
    counted = {each.reversal_id: each.amount_cents for each in db.scalars(select(StripeReversal))}
    assert counted.pop(note_id) == 0, "its refund carries it"
    assert list(counted.values()) == [200]
    check_books(db)


def test_a_credit_note_without_a_refund_takes_back_until_it_is_void(
    db: Session, loop: Loop
) -> None:
    """Paid back outside Stripe: created and voided in any order about the payment, doubled."""
    ends: set[str] = set()
    for order in permutations(("paid", "created", "voided")):
        user = make_user(db)
        invoice, events = buy_with_invoice(loop, user)
        note_id, money_back = credit(loop, invoice, out_of_band_amount=200)
        told = {
            "paid": events["invoice.paid"],
            "created": money_back["credit_note.created"],
            "voided": voided(loop, note_id),
        }
        seen: set[str] = set()
        for each in order:
            loop.deliver([told[each]] * 2)
            seen.add(each)
            expected = 0 if "paid" not in seen else 300 if seen == {"paid", "created"} else 500
            assert booked_balance(db, user.user_id) == expected, order
        loop.deliver(doubled(list(told.values())))
        [purchase] = state_of(db, user.user_id)[4]
        ends.add(repr((booked_balance(db, user.user_id), purchase[1:])))
    assert ends == {"(500, (0, 0))"}
    check_books(db)


def test_a_lost_credit_note_is_found(db: Session, loop: Loop, user: User) -> None:
    """Nobody told us: missing, mended, and then nothing is left; its webhook comes too late."""
    invoice, events = buy_with_invoice(loop, user)
    loop.deliver([events["invoice.paid"]])
    note_id, lost = credit(loop, invoice, out_of_band_amount=200)
    [found] = [
        each
        for each in loop.reconcile(LONG_AGO, repairs=False).findings
        if not each["object"].startswith("evt_")
    ]
    assert found == {"object": note_id, "what": "missing", "mended": False}
    assert loop.reconcile(LONG_AGO, repairs=True).drift == 0
    assert booked_balance(db, user.user_id) == 300
    assert loop.reconcile(LONG_AGO, repairs=False).findings == []
    assert set(loop.deliver(lost.values())) <= {
        EventAnswer.ALREADY_PROCESSED,
        EventAnswer.IGNORED,
    }
    check_books(db)
