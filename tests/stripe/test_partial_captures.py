"""Payments captured by hand: what arrived counts, whatever the session's label and total say."""

from itertools import permutations
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.models.user import User
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.wire import CheckoutSession, PaymentIntent
from src.offline_stripe import Delivery
from tests.credits.books import booked_balance, check_books, make_user
from tests.stripe.loop import Loop, only_purchase
from tests.stripe.test_invoices import LONG_AGO

TOLD = ("checkout.session.completed", "charge.succeeded", "payment_intent.succeeded")


def captured(loop: Loop, user: User, cents: int) -> tuple[str, dict[str, Delivery]]:
    """A session of somebody else for 500 cents, of which some were captured; its events."""
    price = {"currency": "usd", "unit_amount": 500, "product_data": {"name": "Starter"}}
    metadata = {
        "user_id": str(user.user_id),
        "credits": "500",
        "package_id": "500",
        "env": "local",
    }
    parameters: Any = {
        "mode": "payment",
        "success_url": "https://example.com/thanks",
        "line_items": [{"quantity": 1, "price_data": price}],
        "metadata": metadata,
        "payment_intent_data": {"capture_method": "manual", "metadata": metadata},
    }
    session = loop.client.v1.checkout.sessions.create(parameters)
    loop.offline.pay(session.id)
    told = loop.webhooks()
    payment = str(loop.offline.get(session.id)["payment_intent"])
    loop.client.v1.payment_intents.capture(payment, {"amount_to_capture": cents})
    told += loop.webhooks()
    return session.id, {each.event_type: each for each in told}


def test_a_payment_captured_in_part_gives_nothing_by_itself(db: Session, loop: Loop) -> None:
    """100 of 500 cents, told in any order, and by reconciliation: it waits, with what arrived."""
    for order in permutations(TOLD):
        user = make_user(db)
        session_id, events = captured(loop, user, 100)
        answers = loop.deliver([events[each] for each in order])
        assert set(answers) == {EventAnswer.UNMATCHED}
        assert booked_balance(db, user.user_id) == 0
        loop.reconcile(LONG_AGO, repairs=True)
        row = db.get_one(UnmatchedPayment, (False, session_id))
        assert (row.reason, row.status) == ("AMOUNT_MISMATCH", "open"), order
        assert row.details["amount_total_cents"] == 100
    assert db.scalars(select(Transaction)).all() == []
    check_books(db)


@pytest.mark.parametrize("order", list(permutations(TOLD)))
def test_a_payment_captured_whole_is_credited(
    db: Session, loop: Loop, user: User, order: tuple[str, ...]
) -> None:
    """Held first, then captured: credited once the money has arrived."""
    _, events = captured(loop, user, 500)
    loop.deliver([events[each] for each in order])
    assert booked_balance(db, user.user_id) == 500
    assert only_purchase(db).amount_paid_cents == 500
    waiting = select(UnmatchedPayment).where(UnmatchedPayment.status == "open")
    assert db.scalars(waiting).all() == []


def test_what_arrived_is_read_where_stripe_tells_it() -> None:
    """Of a session with its payment, where both are of one currency; of a payment alone."""
    told: dict[str, Any] = {
        "id": "cs_x",
        "livemode": False,
        "currency": "usd",
        "amount_subtotal": 500,
        "amount_total": 500,
    }
    payment = {"id": "pi_x", "status": "succeeded", "currency": "usd", "amount_received": 100}
    for changes, expected in (
        ({}, 100),
        ({"status": "requires_capture"}, 500),
        ({"currency": "eur"}, 500),  # what the customer saw: the session's figures hold
    ):
        session = CheckoutSession.model_validate(told | {"payment_intent": payment | changes})
        read = session.as_payment()
        assert (read.amount_total_cents, read.payment_intent_id) == (expected, "pi_x")
    alone = PaymentIntent.model_validate(payment | {"livemode": False, "amount": 500}).as_payment()
    assert (alone.amount_subtotal_cents, alone.amount_total_cents) == (500, 100)
