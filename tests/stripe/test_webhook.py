"""One paid Checkout Session: stored first, credited once, whatever comes how often."""

import json
import uuid
from typing import Any

import pytest
from dirty_equals import IsNow
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from src.common.models.stripe_event import StripeEvent
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.models.user import User
from src.common.purchases.packages import PACKAGES, Package
from tests.fixtures.api import Api, balance_of, fetch, make_user
from tests.stripe.payments import COMPLETED, SUCCEEDED, make_event, make_session


async def answer_to(api: Api, event: dict[str, Any]) -> str:
    """What Stripe is told about the event."""
    answer = await api.deliver(event)
    assert answer.status_code == 200, answer.text
    status: str = answer.json()["status"]
    return status


async def count(model: type[Any]) -> int:
    """How many rows there are."""
    return await fetch(select(func.count()).select_from(model))


@pytest.mark.parametrize("path", ["/webhook", "/stripe-webhook", "/webhook/", "/stripe-webhook/"])
@pytest.mark.parametrize("event_type", [COMPLETED, SUCCEEDED])
@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.package_id)
async def test_a_paid_package_is_credited(
    api: Api, package: Package, event_type: str, path: str
) -> None:
    """Both paths, a slash after them or not, both events, all five packages: its credits, once."""
    user = await make_user()
    session = make_session(user, package)
    answer = await api.deliver(make_event(session, event_type), path=path)
    assert (answer.status_code, answer.json()) == (200, {"status": "processed"})
    row = await fetch(select(Transaction))
    assert (row.user_id, row.credits_added) == (user.user_id, package.credits)
    assert (row.amount_paid_cents, row.currency) == (package.price_cents, "usd")
    assert (row.stripe_session_id, row.livemode) == (session["id"], False)
    assert row.payment_intent_id == session["payment_intent"]
    assert await balance_of(user.user_id) == package.credits


def test_the_packages_are_the_documents() -> None:
    """Credits, prices and names as agreed with the customer."""
    offer = [(each.name, each.credits, each.price_cents, each.currency) for each in PACKAGES]
    assert offer == [
        ("Starter", 500, 500, "usd"),
        ("Basic", 1_000, 900, "usd"),
        ("Pro", 2_500, 2_000, "usd"),
        ("Business", 5_000, 3_500, "usd"),
        ("Enterprise", 10_000, 6_000, "usd"),
    ]
    assert [each.package_id for each in PACKAGES] == [str(each.credits) for each in PACKAGES]


async def test_the_event_is_stored_as_it_was_signed(api: Api) -> None:
    """Byte for byte, with what the inbox needs to find it."""
    session = make_session(await make_user())
    body = json.dumps(make_event(session), indent=3)
    await api.deliver(body)
    row = await fetch(select(StripeEvent))
    assert row.body == body.encode()
    assert (row.type, row.object_id, row.livemode) == (COMPLETED, session["id"], False)
    assert (row.status, row.attempts, row.error) == ("processed", 1, None)
    assert row.processed_at == IsNow(tz="UTC", delta=60)


async def test_a_copy_of_a_processed_event_changes_nothing(api: Api) -> None:
    """`already_processed`, one event, one row, one increase."""
    user = await make_user()
    event = make_event(make_session(user))
    assert await answer_to(api, event) == "processed"
    assert [await answer_to(api, event) for _ in range(3)] == ["already_processed"] * 3
    assert await fetch(select(StripeEvent.attempts)) == 1
    assert (await count(StripeEvent), await count(Transaction)) == (1, 1)
    assert await balance_of(user.user_id) == 500


async def test_both_events_about_a_payment_credit_it_once(api: Api) -> None:
    """Whichever comes first credits; the other finds it done."""
    user = await make_user()
    session = make_session(user)
    assert await answer_to(api, make_event(session, SUCCEEDED)) == "processed"
    assert await answer_to(api, make_event(session, COMPLETED)) == "already_processed"
    assert (await count(StripeEvent), await count(Transaction)) == (2, 1)
    assert await balance_of(user.user_id) == 500


async def test_unpaid_then_paid_is_credited_and_resolved(api: Api) -> None:
    """A delayed payment waits as unmatched, until the event that says it was paid."""
    user = await make_user()
    session = make_session(user, payment_status="unpaid")
    assert await answer_to(api, make_event(session)) == "unmatched"
    assert (await fetch(select(UnmatchedPayment))).reason == "NOT_PAID"
    assert await balance_of(user.user_id) == 0
    paid = {**session, "payment_status": "paid"}
    assert await answer_to(api, make_event(paid, SUCCEEDED)) == "processed"
    row = await fetch(select(UnmatchedPayment))
    assert (row.status, row.actor) == ("resolved", "system:webhook")
    assert row.resolution
    assert row.resolved_at
    assert await balance_of(user.user_id) == 500


async def test_a_stale_unpaid_after_paid_changes_nothing(api: Api) -> None:
    """Stripe does not promise an order: the old picture is `already_processed`."""
    user = await make_user()
    session = make_session(user)
    assert await answer_to(api, make_event(session, SUCCEEDED)) == "processed"
    stale = {**session, "payment_status": "unpaid"}
    assert await answer_to(api, make_event(stale)) == "already_processed"
    assert (await count(UnmatchedPayment), await count(Transaction)) == (0, 1)
    assert await balance_of(user.user_id) == 500


@pytest.mark.parametrize(
    "event_type",
    ["customer.created", "product.updated", "something.of.the.future"],
)
async def test_an_event_we_do_not_handle_is_kept_and_ignored(api: Api, event_type: str) -> None:
    """`ignored`, also a second time; the body stays for whoever handles it one day."""
    user = await make_user()
    event = make_event(make_session(user), event_type)
    assert [await answer_to(api, event) for _ in range(2)] == ["ignored"] * 2
    row = await fetch(select(StripeEvent))
    assert (row.status, row.type) == ("ignored", event_type)
    assert row.body == json.dumps(event).encode()
    assert await balance_of(user.user_id) == 0


async def test_a_copy_of_an_unmatched_event_is_judged_anew(api: Api) -> None:
    """What was missing may be there now: the user signed up after paying."""
    user_id = uuid.uuid4()
    event = make_event(make_session(user_id))
    assert await answer_to(api, event) == "unmatched"
    await make_user(user_id=user_id)
    assert await answer_to(api, event) == "processed"
    assert await balance_of(user_id) == 500
    assert (await fetch(select(UnmatchedPayment.status))) == "resolved"


async def test_the_same_id_in_both_modes_is_two_events(api: Api) -> None:
    """Test mode and live mode are two worlds with one name space each."""
    user = await make_user()
    for livemode in (False, True):
        session = make_session(user, livemode=livemode)
        assert await answer_to(api, make_event(session, id="evt_1")) == "processed"
    assert (await count(StripeEvent), await balance_of(user.user_id)) == (2, 1_000)


@pytest.mark.parametrize("changes", [{"is_active": False}, {"user_type": "guest"}])
async def test_a_paid_purchase_is_credited_whoever_the_user_is(
    api: Api, changes: dict[str, Any]
) -> None:
    """A deactivated user has paid all the same."""
    user = await make_user(**changes)
    assert await answer_to(api, make_event(make_session(user))) == "processed"
    assert await balance_of(user.user_id) == 500


async def test_an_expanded_payment_intent_is_its_id(api: Api) -> None:
    """Stripe sends an object where somebody asked it to expand one."""
    session = make_session(await make_user(), payment_intent={"id": "pi_1", "amount": 500})
    assert await answer_to(api, make_event(session)) == "processed"
    assert await fetch(select(Transaction.payment_intent_id)) == "pi_1"


async def test_nul_anywhere_in_an_event_is_no_failure(api: Api) -> None:
    """PostgreSQL stores no NUL: an event that has some is kept, noted, and credits nobody."""
    nul = "a\x00b"
    odd: dict[str, Any] = {
        "currency": nul,
        "payment_status": nul,
        "payment_intent": nul,
        "mode": nul,
    }
    metadata = {"env": nul, "package_id": nul, "credits": nul, "user_id": nul}
    session = make_session(uuid.uuid4(), id=nul, metadata=metadata, **odd)
    event = make_event(session, id=nul, api_version=nul)
    assert await answer_to(api, event) == "unmatched"
    assert await answer_to(api, {**event, "type": nul, "id": "evt_2"}) == "ignored"
    assert (await fetch(select(UnmatchedPayment))).details["currency"] == "a\ufffdb"


async def test_two_sessions_of_one_payment_credit_once(api: Api) -> None:
    """A payment is its PaymentIntent: under another session it is a conflict, noted."""
    user = await make_user()
    first, second = (make_session(user, payment_intent="pi_1") for _ in range(2))
    assert await answer_to(api, make_event(first)) == "processed"
    assert await answer_to(api, make_event(second)) == "already_processed"
    other = make_session(await make_user(), payment_intent="pi_1")
    assert await answer_to(api, make_event(other)) == "unmatched"
    assert (await fetch(select(UnmatchedPayment))).reason == "PAYMENT_CONFLICT"
    assert await fetch(select(func.sum(User.credits_balance))) == 500


async def test_an_event_whose_body_was_dropped_is_done(api: Api, async_db: AsyncSession) -> None:
    """Bodies go some days after processing; a copy that comes later changes nothing."""
    user = await make_user()
    event = make_event(make_session(user))
    await answer_to(api, event)
    await async_db.execute(update(StripeEvent).values(body=None))
    await async_db.commit()
    assert await answer_to(api, event) == "already_processed"
    assert await balance_of(user.user_id) == 500
