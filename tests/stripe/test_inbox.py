"""The inbox's edges: what few events say, what is forgotten in time, what fails once more."""

import datetime as dt
import json
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from src.common.models.stripe_event import StripeEvent
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.models.user import User
from src.common.stripe import inbox
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.wire import parse_event
from src.offline_stripe import Delivery, Trouble, TroubleKind
from tests.credits.books import booked_balance
from tests.stripe.loop import Loop
from tests.stripe.payments import make_event, make_session


def delivery_of(stripe_object: dict[str, Any], event_type: str) -> Delivery:
    """An event about this object."""
    event = make_event(stripe_object, event_type)
    body = json.dumps(event).encode()
    return Delivery("d", event["id"], event_type, "http://test", body, {}, 1)


def test_a_charge_of_no_payment_is_unmatched(db: Session, loop: Loop) -> None:
    """Somebody charged a card without a PaymentIntent: money that is nobody's credits."""
    charge = {"id": "ch_1", "object": "charge", "livemode": False, "payment_intent": None}
    assert loop.deliver([delivery_of(charge, "charge.succeeded")]) == [EventAnswer.UNMATCHED]
    row = db.scalars(select(UnmatchedPayment)).one()
    assert (row.stripe_object_id, row.reason) == ("ch_1", "MODE_NOT_PAYMENT")


def test_an_invoice_that_nothing_was_paid_on_is_unmatched(db: Session, loop: Loop) -> None:
    """It has no PaymentIntent: noted under its own id, once."""
    invoice: dict[str, Any] = {
        "id": "in_1",
        "object": "invoice",
        "livemode": False,
        "currency": "usd",
        "amount_paid": 0,
        "metadata": {},
    }
    events = [delivery_of(invoice, "invoice.paid") for _ in range(2)]
    assert loop.deliver(events) == [EventAnswer.UNMATCHED] * 2
    row = db.scalars(select(UnmatchedPayment)).one()
    assert (row.stripe_object_id, row.reason) == ("in_1", "MODE_NOT_PAYMENT")


def test_old_bodies_are_forgotten_and_open_ones_kept(db: Session, loop: Loop, user: User) -> None:
    """Processed and ignored ones go after 30 days; what may be replayed after 90."""
    events = {
        "processed": delivery_of(make_session(user), "checkout.session.completed"),
        "ignored": delivery_of(make_session(user), "ping"),
        "unmatched": delivery_of(make_session(user, currency="eur"), "checkout.session.completed"),
    }
    answers = loop.deliver(events.values())
    assert [str(answer) for answer in answers] == list(events)
    assert inbox.drop_old_bodies(db) == 0
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=inbox.BODY_DAYS, minutes=1)
    db.execute(update(StripeEvent).values(received_at=past))
    db.commit()
    assert [inbox.drop_old_bodies(db, limit=1) for _ in range(3)] == [1, 1, 0]
    db.commit()
    kept = db.scalars(select(StripeEvent.status).where(StripeEvent.body.is_not(None)))
    assert list(kept) == ["unmatched"]
    for status in ("received", "failed", "dead", "unmatched"):
        past = dt.datetime.now(dt.UTC) - dt.timedelta(days=inbox.OPEN_BODY_DAYS, minutes=1)
        unmatched = StripeEvent.event_id == events["unmatched"].event_id
        body = events["unmatched"].body
        db.execute(
            update(StripeEvent).where(unmatched).values(received_at=past, status=status, body=body)
        )
        db.commit()
        assert inbox.drop_old_bodies(db) == (1 if status in ("dead", "unmatched") else 0)
        db.commit()
    assert loop.deliver([events["processed"]]) == [EventAnswer.ALREADY_PROCESSED]
    assert booked_balance(db, user.user_id) == 500


def test_a_dead_event_that_fails_again_says_why_now(db: Session, loop: Loop, user: User) -> None:
    """Replayed while Stripe is down: still dead, with the newest error; later it is settled."""
    loop.offline.pay(loop.session_of(loop.buy(user.user_id)))
    [intent] = [each for each in loop.webhooks() if each.event_type == "payment_intent.succeeded"]
    assert inbox.store_event(db, parse_event(intent.body), intent.body)
    db.execute(update(StripeEvent).values(status="dead", attempts=16, error="of long ago"))
    db.commit()
    loop.offline.troubles.add(Trouble(TroubleKind.ERROR, times=500))
    assert loop.deliver([intent]) == [EventAnswer.ACCEPTED]
    db.expire_all()
    row = db.scalars(select(StripeEvent)).one()
    assert (row.status, row.attempts) == ("dead", 18)
    assert str(row.error).startswith("STRIPE_GATEWAY_ERROR")
    assert loop.settle_due() == 0
    loop.offline.troubles.clear()
    assert loop.deliver([intent]) == [EventAnswer.PROCESSED]
    assert booked_balance(db, user.user_id) == 500


@pytest.mark.parametrize("status", ["ignored", "unmatched"])
def test_an_event_that_was_put_aside_and_fails_again_keeps_why(
    db: Session, loop: Loop, user: User, status: str
) -> None:
    """Replayed while Stripe is down: it stays what it was, says why, and is not tried by itself."""
    loop.offline.pay(loop.session_of(loop.buy(user.user_id)))
    [intent] = [each for each in loop.webhooks() if each.event_type == "payment_intent.succeeded"]
    assert inbox.store_event(db, parse_event(intent.body), intent.body)
    db.execute(update(StripeEvent).values(status=status, attempts=1, lease_expires_at=None))
    db.commit()
    loop.offline.troubles.add(Trouble(TroubleKind.ERROR, times=500))
    assert loop.deliver([intent]) == [EventAnswer.ACCEPTED]
    db.expire_all()
    row = db.scalars(select(StripeEvent)).one()
    assert (row.status, row.attempts, row.next_attempt_at) == (status, 3, None)
    assert str(row.error).startswith("STRIPE_GATEWAY_ERROR")
    loop.offline.troubles.clear()
    assert loop.settle_due() == 0
    assert loop.deliver([intent]) == [EventAnswer.PROCESSED]
    db.expire_all()
    assert (row.status, row.attempts, row.error) == ("processed", 4, None)


def test_a_charge_that_our_key_cannot_ask_about_is_unmatched(db: Session, loop: Loop) -> None:
    """Of the other mode, or another account: never passed over as if it had been credited."""
    charge = {"id": "ch_1", "object": "charge", "livemode": True, "payment_intent": "pi_theirs"}
    assert loop.deliver([delivery_of(charge, "charge.succeeded")]) == [EventAnswer.UNMATCHED]
    row = db.scalars(select(UnmatchedPayment)).one()
    assert (row.stripe_object_id, row.livemode) == ("pi_theirs", True)


def test_a_stored_event_that_cannot_be_read_holds_up_nobody(
    db: Session, loop: Loop, user: User
) -> None:
    """A body of another release's: it fails and says why; the one after it is settled."""
    good = delivery_of(make_session(user), "checkout.session.completed")
    bad = delivery_of(make_session(user), "checkout.session.completed")
    for each in (bad, good):
        assert inbox.store_event(db, parse_event(each.body), each.body)
    db.execute(update(StripeEvent).values(lease_expires_at=None))
    unreadable = update(StripeEvent).where(StripeEvent.event_id == bad.event_id)
    db.execute(unreadable.values(body=b"{}"))
    db.commit()
    assert loop.settle_due() == 2
    db.expire_all()
    row = db.get_one(StripeEvent, (False, bad.event_id))
    assert (row.status, row.attempts) == ("failed", 2)
    assert str(row.error).startswith("WEBHOOK_PAYLOAD_INVALID")
    assert booked_balance(db, user.user_id) == 500
