"""`POST /transactions/{id}/refund`: paid back once, by whoever may, never more than was paid."""

import asyncio
import uuid
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from src.common.models.refund_request import RefundRequest
from src.common.models.stripe_reversal import StripeReversal
from src.common.models.transaction import Transaction
from src.offline_stripe import InProcessClient, OfflineStripe, Trouble, TroubleKind
from tests.api.stripe_side import Silent, buy, deliver_all, offline_stripe, open_stripe
from tests.api.tokens import make_token
from tests.fixtures.api import (
    PATIENCE_SECONDS,
    Api,
    StartApi,
    balance_of,
    error_type_of,
    fetch,
    make_api_key,
    make_user,
)

REQUESTS = select(func.count()).select_from(RefundRequest)
REVERSALS = select(func.count()).select_from(StripeReversal)


async def purchase_of(api: Api, offline: OfflineStripe) -> Transaction:
    """A credited purchase of a new user, 500 cents for 500 credits."""
    user = await make_user()
    await buy(api, offline, user.user_id)
    await deliver_all(api, offline)
    return await fetch(select(Transaction).where(Transaction.user_id == user.user_id))


async def refund(
    api: Api,
    bearer: str,
    transaction_id: uuid.UUID,
    key: str | None = "r",
    **body: Any,
) -> httpx.Response:
    """Ask for money back."""
    headers = {} if key is None else {"Idempotency-Key": key}
    path = f"/transactions/{transaction_id}/refund"
    return await api.call("POST", path, bearer, json=body, headers=headers)


async def test_a_part_and_then_the_rest_are_paid_back(api: Api) -> None:
    """Money at Stripe, credits here, at once; the webhooks about it change nothing more."""
    offline = offline_stripe(api)
    bought, key = await purchase_of(api, offline), await make_api_key("payments:refund")
    part = await refund(api, key, bought.transaction_id, amount_cents=200, reason="a gift")
    assert part.status_code == 200
    made = offline.get(part.json()["refund_id"])
    assert (made["amount"], part.json()["amount_cents"]) == (200, 200)
    assert await balance_of(bought.user_id) == 300
    rest = await refund(api, key, bought.transaction_id, "rest")
    assert rest.json()["amount_cents"] == 300
    assert set(await deliver_all(api, offline)) <= {"already_processed", "ignored"}
    assert await balance_of(bought.user_id) == 0
    assert await fetch(select(Transaction.refunded_cents)) == 500


async def test_a_key_refunds_once(api: Api) -> None:
    """Again it is the same refund, replayed; with another amount it is refused."""
    offline = offline_stripe(api)
    bought, key = await purchase_of(api, offline), await make_api_key("payments:refund")
    first = await refund(api, key, bought.transaction_id, amount_cents=200)
    again = await refund(api, key, bought.transaction_id, amount_cents=200)
    assert first.json() == again.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    other = await refund(api, key, bought.transaction_id, amount_cents=100)
    assert (other.status_code, error_type_of(other)) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert (await balance_of(bought.user_id), await fetch(REQUESTS)) == (300, 1)


async def test_only_the_scope_refunds(api: Api) -> None:
    """Not the buyer, not another service, not nobody; a user of type admin may."""
    offline = offline_stripe(api)
    bought = await purchase_of(api, offline)
    admin = await make_user(user_type="admin")
    for bearer in (make_token(bought.user_id), await make_api_key("credits:grant")):
        answer = await refund(api, bearer, bought.transaction_id)
        assert (answer.status_code, error_type_of(answer)) == (403, "FORBIDDEN")
        nowhere = await refund(api, bearer, uuid.uuid4())
        assert nowhere.json()["detail"]["message"] == answer.json()["detail"]["message"]
    path = f"/transactions/{bought.transaction_id}/refund"
    assert (await api.call("POST", path, json={})).status_code == 401
    assert await fetch(REQUESTS) == 0
    assert (await refund(api, make_token(admin.user_id), bought.transaction_id)).status_code == 200


async def test_who_may_not_refund_learns_nothing_about_bodies(api: Api) -> None:
    """The scope is looked at before the body, as for every other write."""
    key = await make_api_key("credits:spend")
    answer = await refund(api, key, uuid.uuid4(), amount_cents="nonsense")
    assert (answer.status_code, error_type_of(answer)) == (403, "FORBIDDEN")


@pytest.mark.parametrize(
    ("changes", "status", "error_type"),
    [
        ({"key": None}, 400, "IDEMPOTENCY_KEY_REQUIRED"),
        ({"key": "k" * 256}, 422, "VALIDATION_ERROR"),
        ({"amount_cents": 501}, 422, "REFUND_EXCEEDS_PAYMENT"),
        ({"amount_cents": 0}, 422, "VALIDATION_ERROR"),
        ({"amount_cents": "200"}, 422, "VALIDATION_ERROR"),
        ({"transaction_id": uuid.UUID(int=7)}, 404, "TRANSACTION_NOT_FOUND"),
    ],
)
async def test_what_is_refused_pays_nothing_back(
    api: Api, changes: dict[str, Any], status: int, error_type: str
) -> None:
    """An error that names what is wrong; no request is noted, Stripe is not asked."""
    offline = offline_stripe(api)
    bought, key = await purchase_of(api, offline), await make_api_key("payments:refund")
    wish: dict[str, Any] = {"transaction_id": bought.transaction_id, "key": "r", **changes}
    answer = await refund(api, key, **wish)
    assert (answer.status_code, error_type_of(answer)) == (status, error_type)
    if error_type == "REFUND_EXCEEDS_PAYMENT":
        assert answer.json()["detail"]["refundable_cents"] == 500
    assert await fetch(REQUESTS) == 0
    assert list(offline.account.all("refund")) == []


async def test_what_was_paid_back_at_stripe_is_not_paid_back_again(api: Api) -> None:
    """Its webhook has not come yet: Stripe refuses, we say so, and the key keeps that answer."""
    offline = offline_stripe(api)
    bought, key = await purchase_of(api, offline), await make_api_key("payments:refund")
    payment = offline.get(str(bought.payment_intent_id))
    InProcessClient(offline).request(
        "POST",
        "http://stripe.test/v1/refunds",
        {"authorization": "Bearer sk_test_1"},
        f"charge={payment['latest_charge']}",
    )
    for _ in range(2):
        answer = await refund(api, key, bought.transaction_id, amount_cents=100)
        assert (answer.status_code, error_type_of(answer)) == (422, "REFUND_EXCEEDS_PAYMENT")
    await deliver_all(api, offline)
    assert (await balance_of(bought.user_id), await fetch(REVERSALS)) == (0, 1)


async def test_a_stripe_that_is_down_leaves_a_request_to_ask_again(api: Api) -> None:
    """502, no credits gone, and what was asked for stays reserved; the same key then pays once."""
    offline = offline_stripe(api)
    bought, key = await purchase_of(api, offline), await make_api_key("payments:refund")
    offline.troubles.add(Trouble(TroubleKind.ERROR, times=50))
    answer = await refund(api, key, bought.transaction_id, amount_cents=400)
    assert (answer.status_code, error_type_of(answer)) == (502, "STRIPE_GATEWAY_ERROR")
    assert (await balance_of(bought.user_id), await fetch(REVERSALS)) == (500, 0)
    offline.troubles.clear()
    more = await refund(api, key, bought.transaction_id, "more", amount_cents=101)
    assert more.json()["detail"]["refundable_cents"] == 100
    assert (await refund(api, key, bought.transaction_id, amount_cents=400)).status_code == 200
    assert await balance_of(bought.user_id) == 100


async def test_a_stripe_that_never_answers_refunds_once(api: Api) -> None:
    """It paid back and kept silent: 502 by our time-out; the same key learns of that refund."""
    offline = offline_stripe(api)
    bought, key = await purchase_of(api, offline), await make_api_key("payments:refund")
    open_stripe(api, Silent(offline), timeout_seconds=0.05)
    asking = refund(api, key, bought.transaction_id, amount_cents=200)
    answer = await asyncio.wait_for(asking, PATIENCE_SECONDS)
    assert (answer.status_code, error_type_of(answer)) == (502, "STRIPE_GATEWAY_ERROR")
    [made] = list(offline.account.all("refund"))
    open_stripe(api, InProcessClient(offline))
    again = await refund(api, key, bought.transaction_id, amount_cents=200)
    assert again.json() == {"refund_id": made["id"], "amount_cents": 200}
    assert await balance_of(bought.user_id) == 300


async def test_refunds_asked_for_at_once_never_exceed_the_payment(start_api: StartApi) -> None:
    """Six of 200 cents on a payment of 500, all at once: two are paid, four are told why not."""
    api = await start_api()
    offline = offline_stripe(api)
    bought, key = await purchase_of(api, offline), await make_api_key("payments:refund")
    answers = await asyncio.gather(
        *(refund(api, key, bought.transaction_id, f"r{n}", amount_cents=200) for n in range(6))
    )
    assert sorted(each.status_code for each in answers) == [200, 200, 422, 422, 422, 422]
    assert len(list(offline.account.all("refund"))) == 2
    await deliver_all(api, offline)
    assert (await balance_of(bought.user_id), await fetch(REVERSALS)) == (100, 2)
