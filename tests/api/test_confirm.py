"""`POST /checkout-session/{id}/confirm`: what became of a payment, for the success page."""

import asyncio
import json
import uuid

import httpx
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from src.common.async_database import run_in_async_database_transaction
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.credit_lot import CreditLot
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import UnmatchedPayment
from src.offline_stripe import Trouble, TroubleKind
from tests.api.stripe_side import buy, click, deliver_all, offline_stripe, sessions
from tests.api.tokens import make_token
from tests.fixtures.api import (
    Api,
    StartApi,
    balance_of,
    error_type_of,
    fetch,
    make_api_key,
    make_user,
)


async def confirm(api: Api, bearer: str, session_id: str) -> httpx.Response:
    """What the success page does."""
    return await api.call("POST", f"/checkout-session/{session_id}/confirm", bearer)


async def status(api: Api, user_id: uuid.UUID, session_id: str) -> str:
    """What its user is told of a session."""
    answer = await confirm(api, make_token(user_id), session_id)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["status"])


async def test_a_payment_is_credited_before_any_webhook(api: Api) -> None:
    """Once, by whoever asks; the webhooks then find it done, and Stripe is not asked again."""
    offline, user = offline_stripe(api), await make_user()
    session_id = await buy(api, offline, user.user_id, "1000")
    assert await status(api, user.user_id, session_id) == "credited"
    assert await balance_of(user.user_id) == 1_000
    assert await fetch(select(CheckoutOrder.status)) == "paid"
    assert set(await deliver_all(api, offline)) <= {"already_processed", "ignored"}
    offline.troubles.add(Trouble(TroubleKind.ERROR, times=50))
    assert await status(api, user.user_id, session_id) == "credited"
    assert await balance_of(user.user_id) == 1_000


async def test_journal_and_purchases_say_what_was_paid_for(api: Api) -> None:
    """Package, price and session by the grant; by the purchase how it stands and what is left."""
    offline, user = offline_stripe(api), await make_user()
    session_id = await buy(api, offline, user.user_id, "1000")
    await status(api, user.user_id, session_id)
    answer = await api.get(f"/user/{user.user_id}/credits/entries", make_token(user.user_id))
    [entry] = answer.json()["items"]
    transaction_id = await fetch(select(Transaction.transaction_id))
    assert entry["purchase"] == {
        "transaction_id": str(transaction_id),
        "stripe_session_id": session_id,
        "package_id": "1000",
        "amount_paid_cents": 900,
        "currency": "usd",
    }
    answer = await api.get(f"/user/{user.user_id}/transactions", make_token(user.user_id))
    [bought] = answer.json()["items"]
    assert bought["transaction_id"] == str(transaction_id)
    assert (bought["state"], bought["package_id"]) == ("paid", "1000")
    assert (bought["credits_added"], bought["credits_left"]) == (1_000, 1_000)


async def test_an_order_that_does_not_know_its_session_is_found(api: Api) -> None:
    """Stripe's answer was lost: the session's own metadata leads to the order."""
    offline, user = offline_stripe(api), await make_user()
    session_id = await buy(api, offline, user.user_id)
    forgotten = {"stripe_session_id": None, "url": None, "status": "created"}

    def forget(session: Session) -> None:
        session.execute(update(CheckoutOrder).values(forgotten))

    await run_in_async_database_transaction(forget)
    assert await status(api, user.user_id, session_id) == "credited"
    order = await fetch(select(CheckoutOrder))
    assert (order.status, order.stripe_session_id) == ("paid", session_id)


async def test_what_is_not_paid_is_pending_expired_or_failed(api: Api) -> None:
    """An open page, a delayed payment on its way, come in, or not, and a page nobody paid on."""
    offline, user = offline_stripe(api), await make_user()
    for key in "abc":
        await click(api, user.user_id, key=key)
    comes_in, fails, expires = (each["id"] for each in sessions(offline))
    assert await status(api, user.user_id, comes_in) == "pending"
    for session_id in (comes_in, fails):
        offline.pay(session_id, "sepa")
        assert await status(api, user.user_id, session_id) == "pending"
    offline.settle_payment(comes_in)
    assert await status(api, user.user_id, comes_in) == "credited"
    offline.settle_payment(fails, succeeded=False)
    await deliver_all(api, offline)
    assert await status(api, user.user_id, fails) == "failed"
    offline.advance(25 * 3_600)
    assert await status(api, user.user_id, expires) == "expired"
    statuses = await fetch(select(func.array_agg(CheckoutOrder.status)))
    assert sorted(statuses) == ["expired", "failed", "paid"]
    assert await balance_of(user.user_id) == 500


async def test_a_payment_that_does_not_match_says_so(api: Api) -> None:
    """Paid, but not what the order says: nobody is credited, and the row says why."""
    offline, user = offline_stripe(api), await make_user()
    session_id = await buy(api, offline, user.user_id)
    offline.get(session_id)["amount_subtotal"] = 400
    assert await status(api, user.user_id, session_id) == "unmatched"
    row = await fetch(select(UnmatchedPayment))
    assert (row.reason, row.event_id) == ("AMOUNT_MISMATCH", f"confirm:{session_id}")
    assert await balance_of(user.user_id) == 0


async def test_only_its_own_user_learns_of_a_session(api: Api) -> None:
    """Another user is told what they are told of one that does not exist; nothing is settled."""
    offline, user, stranger = offline_stripe(api), await make_user(), await make_user()
    session_id = await buy(api, offline, user.user_id)
    answers = [
        await confirm(api, make_token(stranger.user_id), session_id),
        await confirm(api, make_token(stranger.user_id), "cs_test_none"),
        await confirm(api, await make_api_key("payments:refund"), session_id),
        await confirm(api, make_token(user.user_id), "pi_1"),
        await api.call("POST", f"/checkout-session/{session_id}/confirm"),
    ]
    assert [(each.status_code, error_type_of(each)) for each in answers] == [
        (404, "CHECKOUT_SESSION_NOT_FOUND"),
        (404, "CHECKOUT_SESSION_NOT_FOUND"),
        (403, "FORBIDDEN"),
        (422, "VALIDATION_ERROR"),
        (401, "AUTHENTICATION_FAILURE"),
    ]
    assert await balance_of(user.user_id) == 0


async def test_a_session_of_no_order_belongs_to_whom_it_names(api: Api) -> None:
    """Its metadata names the user: a stranger gets nothing, the user gets the credits."""
    offline, user, stranger = offline_stripe(api), await make_user(), await make_user()
    session_id = await buy(api, offline, user.user_id)
    session = offline.get(session_id)
    session["client_reference_id"] = None
    del session["metadata"]["order_id"]

    def forget(database: Session) -> None:
        database.query(CheckoutOrder).delete()

    await run_in_async_database_transaction(forget)
    answer = await confirm(api, make_token(stranger.user_id), session_id)
    assert (answer.status_code, await balance_of(user.user_id)) == (404, 0)
    assert await status(api, user.user_id, session_id) == "credited"


async def test_while_stripe_is_down_nothing_is_known(api: Api) -> None:
    """502, nothing is done; the webhook settles it all the same."""
    offline, user = offline_stripe(api), await make_user()
    session_id = await buy(api, offline, user.user_id)
    offline.troubles.add(Trouble(TroubleKind.ERROR, times=50))
    answer = await confirm(api, make_token(user.user_id), session_id)
    assert (answer.status_code, error_type_of(answer)) == (502, "STRIPE_GATEWAY_ERROR")
    offline.troubles.clear()
    assert "processed" in await deliver_all(api, offline)
    assert await balance_of(user.user_id) == 500


async def test_the_success_page_and_the_webhooks_race_for_one_grant(start_api: StartApi) -> None:
    """Eight calls of the page and every webhook twice, all at once: credited once."""
    api = await start_api()
    offline, user = offline_stripe(api), await make_user()
    session_id = await buy(api, offline, user.user_id)
    events = [json.loads(each.body) for each in offline.webhooks.due()] * 2
    token = make_token(user.user_id)
    answers = await asyncio.gather(
        *(confirm(api, token, session_id) for _ in range(8)),
        *(api.deliver(event) for event in events),
    )
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["status"] for answer in answers[:8]} == {"credited"}
    assert await balance_of(user.user_id) == 500
    assert await fetch(select(func.count(Transaction.transaction_id))) == 1
    assert await fetch(select(func.count()).select_from(CreditLot)) == 1
