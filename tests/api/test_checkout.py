"""`POST /create-checkout-session`: one order, one customer, one page, whatever Stripe does."""

import asyncio

from sqlalchemy import func, select

from src.common.models.checkout_order import CheckoutOrder
from src.common.models.user import User
from src.offline_stripe import InProcessClient, OfflineStripe, Trouble, TroubleKind
from tests.api.stripe_side import (
    CHECKOUT,
    Silent,
    Together,
    buy,
    click,
    customers,
    deliver_all,
    offline_stripe,
    open_stripe,
    sessions,
)
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

ORDERS = select(func.count(CheckoutOrder.order_id))


async def test_a_page_is_made_paid_and_credited(api: Api) -> None:
    """The answer's page is Stripe's, with the order in it; its webhooks credit the package."""
    offline, user = offline_stripe(api), await make_user()
    session_id = await buy(api, offline, user.user_id, "2500")
    session = offline.get(session_id)
    order = await fetch(select(CheckoutOrder))
    assert (session["amount_total"], session["client_reference_id"]) == (2_000, str(order.order_id))
    assert (order.status, order.credits, order.stripe_session_id) == ("open", 2_500, session_id)
    assert session["metadata"] == {
        "user_id": str(user.user_id),
        "credits": "2500",
        "package_id": "2500",
        "env": "local",
        "order_id": str(order.order_id),
    }
    assert "unmatched" not in await deliver_all(api, offline)
    assert await balance_of(user.user_id) == 2_500


async def test_the_same_key_is_the_same_page(api: Api) -> None:
    """Replayed, and said so; another key is another page of the same customer."""
    offline, user = offline_stripe(api), await make_user()
    first, again = await click(api, user.user_id), await click(api, user.user_id)
    assert first.json() == again.json()
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    other = await click(api, user.user_id, key="another")
    assert other.json()["url"] != first.json()["url"]
    assert (len(customers(offline)), len(sessions(offline)), await fetch(ORDERS)) == (1, 2, 2)


async def test_a_key_belongs_to_one_request_of_one_user(api: Api) -> None:
    """With another package it is 409 and nothing is made; another user's is another key."""
    offline, user = offline_stripe(api), await make_user()
    await click(api, user.user_id)
    refused = await click(api, user.user_id, "1000")
    assert (refused.status_code, error_type_of(refused)) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert (len(sessions(offline)), await fetch(ORDERS)) == (1, 1)
    stranger = await make_user()
    assert (await click(api, stranger.user_id, "1000")).status_code == 200
    assert len(customers(offline)) == 2


async def test_what_is_refused_makes_nothing(api: Api) -> None:
    """No key, no such package, a page of somebody else's, a service's key, no token: no order."""
    offline, user = offline_stripe(api), await make_user()
    answers = [
        await click(api, user.user_id, key=None),
        await click(api, user.user_id, "777"),
        await click(api, user.user_id, success_url="https://evil.test/"),
        await api.call(
            "POST",
            CHECKOUT,
            await make_api_key("payments:refund"),
            json={"credit_option": "500"},
            headers={"Idempotency-Key": "k"},
        ),
        await api.call("POST", CHECKOUT, json={"credit_option": "500"}),
    ]
    assert [(each.status_code, error_type_of(each)) for each in answers] == [
        (400, "IDEMPOTENCY_KEY_REQUIRED"),
        (422, "VALIDATION_ERROR"),
        (422, "VALIDATION_ERROR"),
        (403, "FORBIDDEN"),
        (401, "AUTHENTICATION_FAILURE"),
    ]
    assert [each.json()["detail"].get("field") for each in answers[1:3]] == [
        "credit_option",
        "success_url",
    ]
    assert (customers(offline), sessions(offline), await fetch(ORDERS)) == ([], [], 0)


async def test_without_a_stripe_key_nothing_is_offered(api: Api) -> None:
    """503 that says what is missing, and no order."""
    answer = await click(api, (await make_user()).user_id)
    assert (answer.status_code, error_type_of(answer)) == (503, "STRIPE_NOT_CONFIGURED")
    assert await fetch(ORDERS) == 0


async def test_a_stripe_that_is_down_leaves_an_order_to_ask_again(api: Api) -> None:
    """502 at every step it can fail at; then the same key has its page: one order, one customer."""
    offline, user = offline_stripe(api), await make_user()
    for path in ("/v1/customers", "/v1/checkout/sessions"):
        offline.troubles.add(Trouble(TroubleKind.ERROR, times=50, path=path))
        answer = await click(api, user.user_id)
        assert (answer.status_code, error_type_of(answer)) == (502, "STRIPE_GATEWAY_ERROR")
        order = await fetch(select(CheckoutOrder))
        assert (order.status, order.url, order.stripe_session_id) == ("created", None, None)
        offline.troubles.clear()
    assert (await click(api, user.user_id)).status_code == 200
    assert (len(customers(offline)), len(sessions(offline)), await fetch(ORDERS)) == (1, 1, 1)


async def test_a_stripe_that_never_answers_is_left_in_time(api: Api) -> None:
    """It did what was asked and kept silent: 502 by our time-out, and later the very same page."""
    offline, user = offline_stripe(api), await make_user()
    for _ in range(2):  # the customer, then the page
        open_stripe(api, Silent(offline), timeout_seconds=0.05)
        answer = await asyncio.wait_for(click(api, user.user_id), PATIENCE_SECONDS)
        assert (answer.status_code, error_type_of(answer)) == (502, "STRIPE_GATEWAY_ERROR")
        open_stripe(api, InProcessClient(offline))
        offline.troubles.add(Trouble(TroubleKind.ERROR, times=50, path="/v1/checkout"))
        await click(api, user.user_id)
        offline.troubles.clear()
    made = sessions(offline)
    answer = await click(api, user.user_id)
    assert [each["url"] for each in made] == [answer.json()["url"]]
    assert (len(customers(offline)), len(sessions(offline)), await fetch(ORDERS)) == (1, 1, 1)


async def test_two_clicks_at_once_make_one_customer(start_api: StartApi) -> None:
    """Both ask before either is answered: one customer; one page a key."""
    api = await start_api()
    for keys, pages in ((("a", "b"), 2), (("c", "c"), 1)):
        offline, user = OfflineStripe(seed=keys[1]), await make_user()
        open_stripe(api, Together(offline, 2))
        answers = await asyncio.gather(*(click(api, user.user_id, key=key) for key in keys))
        assert [answer.status_code for answer in answers] == [200, 200]
        assert len({answer.json()["url"] for answer in answers}) == pages
        kept = select(User.stripe_customer_id).where(User.user_id == user.user_id)
        assert await fetch(kept) == customers(offline)[0]
        assert (len(customers(offline)), len(sessions(offline))) == (1, pages)


async def test_a_customer_that_stripe_no_longer_has_is_made_anew(start_api: StartApi) -> None:
    """Of another account, or deleted there: clicks at once get pages of one new customer."""
    api = await start_api()
    user = await make_user(stripe_customer_id="cus_of_another_account")
    offline = OfflineStripe(seed="customer")
    open_stripe(api, Together(offline, 2))
    answers = await asyncio.gather(*(click(api, user.user_id, key=key) for key in "ab"))
    assert [answer.status_code for answer in answers] == [200, 200]
    [customer] = customers(offline)
    kept = select(User.stripe_customer_id).where(User.user_id == user.user_id)
    assert await fetch(kept) == customer
    assert {each["customer"] for each in sessions(offline)} == {customer}

    offline.get(customer)["deleted"] = True
    open_stripe(api, InProcessClient(offline))
    assert (await click(api, user.user_id, key="c")).status_code == 200
    assert await fetch(kept) == customers(offline)[1] != customer
