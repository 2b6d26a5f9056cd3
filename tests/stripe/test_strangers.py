"""Orders are found by what only we write: customers may set a `client_reference_id` themselves."""

import json
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.models.checkout_order import CheckoutOrder
from src.common.models.user import User
from src.common.stripe.inbox import EventAnswer
from src.offline_stripe import Delivery
from tests.credits.books import booked_balance, make_user
from tests.stripe.loop import Loop
from tests.stripe.payments import make_event, make_session

# A Payment Link's session that somebody opened with `?client_reference_id=<our order>`.
STRANGERS: dict[str, tuple[str, dict[str, Any], EventAnswer]] = {
    "paid": ("completed", {}, EventAnswer.UNMATCHED),
    "paid later": ("completed", {"payment_status": "unpaid"}, EventAnswer.UNMATCHED),
    "paid by a delayed payment": ("async_payment_succeeded", {}, EventAnswer.UNMATCHED),
    "paid, as advertised": ("completed", {"metadata": {}}, EventAnswer.PROCESSED),
    "paid later, as advertised": (
        "completed",
        {"metadata": {}, "payment_status": "unpaid"},
        EventAnswer.UNMATCHED,
    ),
    "failed": (
        "async_payment_failed",
        {"payment_status": "unpaid"},
        EventAnswer.ALREADY_PROCESSED,
    ),
    "expired": (
        "expired",
        {"status": "expired", "payment_status": "unpaid"},
        EventAnswer.ALREADY_PROCESSED,
    ),
}


def of_stranger(db: Session, order: CheckoutOrder, name: str, **changes: Any) -> Delivery:
    """The event of a stranger's session."""
    session = make_session(make_user(db), client_reference_id=str(order.order_id), **changes)
    if "metadata" not in changes:
        session["metadata"] = {}
    event = make_event(session, f"checkout.session.{name}")
    body = json.dumps(event).encode()
    return Delivery("d", event["id"], event["type"], "http://test", body, {}, 1)


def state_of_order(db: Session) -> dict[str, Any]:
    """All columns of the one order there is."""
    db.expire_all()
    order = db.scalars(select(CheckoutOrder)).one()
    return {name: getattr(order, name) for name in CheckoutOrder.__mapper__.columns.keys()}  # noqa: SIM118  no dict


@pytest.mark.parametrize(("name", "changes", "expected"), STRANGERS.values(), ids=STRANGERS.keys())
@pytest.mark.parametrize("is_lost", [False, True])
def test_a_strangers_session_changes_none_of_our_orders(
    db: Session,
    loop: Loop,
    user: User,
    name: str,
    changes: dict[str, Any],
    expected: EventAnswer,
    is_lost: bool,  # noqa: FBT001  whether Stripe's answer to the order was lost
) -> None:
    """Whatever becomes of it; and our own page is paid and credited afterwards."""
    session_id = loop.session_of(loop.buy(user.user_id))
    order = db.scalars(select(CheckoutOrder)).one()
    if is_lost:
        order.stripe_session_id = order.url = None
        order.status = "created"
        db.commit()
    before = state_of_order(db)
    assert loop.deliver([of_stranger(db, order, name, **changes)]) == [expected]
    assert state_of_order(db) == before
    loop.offline.pay(session_id)
    loop.deliver(loop.webhooks())
    assert booked_balance(db, user.user_id) == 500
    assert state_of_order(db)["status"] == "paid"
    assert state_of_order(db)["stripe_session_id"] == session_id
