"""Whoever handles an event dies at any statement: nothing is lost, nothing is doubled."""

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, func, select, update
from sqlalchemy.orm import Session

from src.common.credits.operations import execute
from src.common.database import SessionLocal, get_engine
from src.common.models.credit_entry import CreditEntry
from src.common.models.stripe_event import StripeEvent
from src.common.models.stripe_reversal import StripeReversal
from src.common.models.transaction import Transaction
from src.common.stripe import inbox
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.wire import parse_event
from src.local_postgres import ConnectionParameters
from src.offline_stripe import Delivery
from tests.credits.books import booked_balance, check_books, make_user, spend
from tests.credits.crashes import counting, interrupted
from tests.stripe.loop import Loop, start_loop

Prepare = Callable[[Loop], tuple[uuid.UUID, Delivery]]


class _Killed(BaseException):
    """Nothing of ours may catch it; the database undoes what was not committed."""


def kill(_connection: Connection) -> None:
    """End whoever is about to send this statement."""
    raise _Killed


def new_user() -> uuid.UUID:
    """A user, committed."""
    with SessionLocal.begin() as session:
        return make_user(session).user_id


def the_one(loop: Loop, event_type: str) -> Delivery:
    """Stripe's event of this type, out of all it has to send now."""
    [found] = [each for each in loop.webhooks() if each.event_type == event_type]
    return found


def checkout(loop: Loop) -> tuple[uuid.UUID, Delivery]:
    """Paid; the session says so."""
    user_id = new_user()
    loop.offline.pay(loop.session_of(loop.buy(user_id)))
    return user_id, the_one(loop, "checkout.session.completed")


def payment(loop: Loop) -> tuple[uuid.UUID, Delivery]:
    """Paid; the PaymentIntent says so, and Stripe is asked for its session."""
    user_id = new_user()
    loop.offline.pay(loop.session_of(loop.buy(user_id)))
    return user_id, the_one(loop, "payment_intent.succeeded")


def refund(loop: Loop) -> tuple[uuid.UUID, Delivery]:
    """Paid, partly spent, all of it paid back: credits go, and a debt stays."""
    user_id, session_id = _credited(loop)
    loop.refund_at_stripe(session_id, 500)
    return user_id, the_one(loop, "refund.created")


def dispute(loop: Loop) -> tuple[uuid.UUID, Delivery]:
    """Paid, partly spent, and the bank has the money."""
    user_id, session_id = _credited(loop)
    loop.offline.open_dispute(loop.charge_of(session_id))
    return user_id, the_one(loop, "charge.dispute.funds_withdrawn")


def _credited(loop: Loop) -> tuple[uuid.UUID, str]:
    user_id = new_user()
    session_id = loop.session_of(loop.buy(user_id))
    loop.offline.pay(session_id)
    loop.deliver([the_one(loop, "checkout.session.completed")])
    with SessionLocal.begin() as session:
        execute(session, [spend(user_id, 200)])
    return user_id, session_id


EVENTS: dict[str, tuple[Prepare, dict[str, int], int, int]] = {
    # what is prepared, the journal by kind, the balance, and the reversals once it is settled
    "checkout": (checkout, {"grant": 1}, 500, 0),
    "payment": (payment, {"grant": 1}, 500, 0),
    "refund": (refund, {"grant": 1, "spend": 1, "clawback": 1}, 0, 1),
    "dispute": (dispute, {"grant": 1, "spend": 1, "clawback": 1}, 0, 1),
}


def check(user_id: uuid.UUID, name: str) -> None:
    """The event took effect just once."""
    _, journal, balance, reversals = EVENTS[name]
    with SessionLocal() as session:
        kinds = session.scalars(select(CreditEntry.kind).where(CreditEntry.user_id == user_id))
        assert Counter(kinds) == journal
        assert booked_balance(session, user_id) == balance
        of_user = select(Transaction.transaction_id).where(Transaction.user_id == user_id)
        [transaction_id] = session.scalars(of_user)
        found = select(func.count()).where(StripeReversal.transaction_id == transaction_id)
        assert session.scalars(found).one() == reversals


def wait_out_leases(session: Session) -> None:
    """Let minutes pass: whoever had an event is known to be dead, and it is due again."""
    past = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)
    unsettled = update(StripeEvent).where(StripeEvent.status == "received")
    session.execute(unsettled.values(lease_expires_at=past, next_attempt_at=past))


def store(delivery: Delivery) -> None:
    """As the endpoint's first database transaction, whose process died right after it."""
    with SessionLocal.begin() as session:
        assert inbox.store_event(session, parse_event(delivery.body), delivery.body)
        wait_out_leases(session)


def attempt(loop: Loop, delivery: Delivery, actor: str) -> None:
    """What the endpoint does with a delivery, or the worker with one that is stored."""
    if actor == "worker":
        loop.settle_due()
    else:
        loop.deliver([delivery])


@pytest.mark.parametrize("actor", ["endpoint", "worker"])
@pytest.mark.parametrize("name", EVENTS)
def test_a_handler_killed_at_any_statement(
    fresh_database: ConnectionParameters, name: str, actor: str
) -> None:
    """Before each statement in turn, COMMIT too: the worker ends it; what is not stored comes back.

    Stripe got no 2xx, so it sends the event again in any case: that changes nothing any more.
    """
    assert fresh_database
    loop, prepare = start_loop(), EVENTS[name][0]
    last, number = 1, 0
    while number <= last:
        user_id, delivery = prepare(loop)
        if actor == "worker":
            store(delivery)
        if number == 0:
            with counting(get_engine()) as statements:
                attempt(loop, delivery, actor)
            last = statements()
            assert last > 10, "it stores, reads, writes and commits"
        else:
            with interrupted(get_engine(), number, kill), pytest.raises(_Killed):
                attempt(loop, delivery, actor)
            with SessionLocal.begin() as session:
                wait_out_leases(session)
            if loop.settle_due() == 0 and actor == "endpoint":
                assert loop.deliver([delivery]) == [EventAnswer.PROCESSED], "it was never stored"
        assert loop.deliver([delivery]) == [EventAnswer.ALREADY_PROCESSED]
        check(user_id, name)
        number += 1
    with SessionLocal() as session:
        check_books(session)
        assert set(session.scalars(select(StripeEvent.status))) == {"processed"}
