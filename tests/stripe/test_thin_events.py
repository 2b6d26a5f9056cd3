"""Thin events (`v2.core.event`): verified, kept, answered 2xx; what they name is fetched."""

import json
import random
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from src.common.models.stripe_event import StripeEvent
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.models.user import User
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.lookup import HANDLED_TYPES
from src.common.stripe.signatures import sign
from src.common.stripe.wire import ThinEvent, parse_event
from src.offline_stripe import Delivery, Trouble, TroubleKind
from tests.credits.books import booked_balance, check_books, make_user
from tests.fixtures.api import WEBHOOK_SECRET, Api, error_type_of, fetch
from tests.purchases.lives import state_of
from tests.stripe.loop import Loop
from tests.stripe.test_invoices import buy_with_invoice, credit


def thin(obj: dict[str, Any], event_type: str, **changes: Any) -> dict[str, Any]:
    """The thin event that tells of this object."""
    name = f"{obj['object'].replace('.', '/')}s"
    return {
        "id": f"evt_thin_{event_type}_{obj['id']}",
        "object": "v2.core.event",
        "type": f"v1.{event_type}",
        "created": "2026-11-29T05:20:10.123Z",
        "livemode": False,
        "context": None,
        "reason": None,
        "related_object": {
            "id": obj["id"],
            "type": obj["object"],
            "url": f"/v1/{name}/{obj['id']}",
        },
    } | changes


def delivery(event: dict[str, Any]) -> Delivery:
    """The event on its way."""
    body = json.dumps(event).encode()
    return Delivery("d", event["id"], event["type"], "http://test", body, {}, 1)


def thinned(snapshot: Delivery) -> Delivery:
    """The thin twin of a snapshot event."""
    told = json.loads(snapshot.body)
    return delivery(thin(told["data"]["object"], told["type"]))


def everything(loop: Loop, user: User) -> list[Delivery]:
    """A purchase, a refund, a dispute, an invoice, and a credit note of it."""
    session_id = loop.session_of(loop.buy(user.user_id, "1000"))
    loop.offline.pay(session_id)
    loop.refund_at_stripe(session_id, 100)
    loop.offline.open_dispute(loop.charge_of(session_id), amount=50)
    told = loop.webhooks()
    invoice, of_invoice = buy_with_invoice(loop, user)
    _, back = credit(loop, invoice, out_of_band_amount=200)
    return [*told, *of_invoice.values(), *back.values()]


@pytest.mark.parametrize("seed", range(3))
def test_a_thin_event_does_what_its_snapshot_would(db: Session, loop: Loop, seed: int) -> None:
    """Alone, in any order, and together with the snapshots: the same books."""
    user = make_user(db)
    told = everything(loop, user)
    events = [thinned(each) for each in told]
    random.Random(seed).shuffle(events)  # noqa: S311  no secret
    answers = loop.deliver(events)
    assert EventAnswer.ACCEPTED not in answers
    handled = {each.event_type.removeprefix("v1.") for each in events} & HANDLED_TYPES
    assert {"invoice.paid", "credit_note.created", "charge.dispute.created"} < handled
    assert booked_balance(db, user.user_id) == 1_500 - 167 - 200
    waiting = select(UnmatchedPayment).where(UnmatchedPayment.status == "open")
    assert db.scalars(waiting).all() == []
    ends = state_of(db, user.user_id)
    assert EventAnswer.PROCESSED not in loop.deliver(told)
    assert state_of(db, user.user_id) == ends
    check_books(db)


def test_a_thin_event_waits_while_stripe_is_silent(db: Session, loop: Loop, user: User) -> None:
    """Accepted, and settled later from the stored body."""
    loop.offline.pay(loop.session_of(loop.buy(user.user_id)))
    [completed] = [
        thinned(each) for each in loop.webhooks() if each.event_type == "checkout.session.completed"
    ]
    loop.offline.troubles.add(Trouble(TroubleKind.ERROR, times=50))
    assert loop.deliver([completed]) == [EventAnswer.ACCEPTED]
    loop.offline.troubles.clear()
    assert loop.deliver([completed]) == [EventAnswer.PROCESSED]
    assert booked_balance(db, user.user_id) == 500


REST: dict[str, dict[str, Any]] = {
    "a type of v2": {"type": "v2.core.account.updated"},
    "a type of v1 that we do not handle": {"type": "v1.customer.created"},
    "nothing it is about": {"related_object": None},
    "one of its type": {"related_object": {"type": "balance", "url": "/v1/balance"}},
    "an object that Stripe does not have": {
        "related_object": {"id": "re_none", "type": "refund", "url": "/v1/refunds/re_none"}
    },
    "a kind we do not read": {
        "related_object": {"id": "x_1", "type": "radar.review", "url": "/v1/reviews/x_1"}
    },
    "another account's": {"context": "acct_theirs"},
    "another account's of an organization": {"context": "org_1/acct_theirs"},
}


@pytest.mark.parametrize("changes", REST.values(), ids=REST.keys())
def test_what_we_do_not_handle_is_kept_and_ignored(
    db: Session, loop: Loop, user: User, changes: dict[str, Any]
) -> None:
    """Whatever it names."""
    session_id = loop.session_of(loop.buy(user.user_id))
    loop.offline.pay(session_id)
    loop.refund_at_stripe(session_id, 100)
    refund = next(iter(loop.offline.account.all("refund")))
    event = thin(refund, "refund.created", **changes)
    assert loop.deliver([delivery(event)]) == [EventAnswer.IGNORED]
    row = db.scalars(select(StripeEvent)).one()
    assert (row.status, row.type) == ("ignored", event["type"])
    assert row.body


async def test_a_thin_event_is_answered_200_where_it_is_signed(api: Api) -> None:
    """Any, with its related object or without; unsigned or signed by others it is 400."""
    event = thin({"id": "cus_x", "object": "customer"}, "customer.created")
    for each in (event, event | {"id": "evt_2", "type": "v2.core.x", "related_object": None}):
        answer = await api.deliver(each)
        assert (answer.status_code, answer.json()) == (200, {"status": "ignored"})
    assert await fetch(select(func.count(StripeEvent.event_id))) == 2
    body = json.dumps(event | {"id": "evt_3"})
    forged = {"Stripe-Signature": sign(body, WEBHOOK_SECRET + "x")}
    answer = await api.call("POST", "/webhook", content=body, headers=forged)
    assert (answer.status_code, error_type_of(answer)) == (400, "WEBHOOK_SIGNATURE_INVALID")


def test_what_tells_a_thin_event() -> None:
    """Its kind alone; a snapshot without its object is none, and still refused."""
    event = thin({"id": "re_x", "object": "refund"}, "refund.failed")
    read = parse_event(json.dumps(event).encode())
    assert isinstance(read, ThinEvent)
    assert (read.object_id, read.snapshot_type, read.account) == ("re_x", "refund.failed", None)
    with pytest.raises(Exception, match="data"):
        parse_event(json.dumps(event | {"object": "event", "created": 1}).encode())
