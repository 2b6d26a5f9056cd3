"""Payments: lists of them, and each as a timeline by whatever name it has."""

import uuid

import pytest

from src.console.permissions import Role
from tests.console.test_users import purchase_of
from tests.fixtures.api import Api, make_user
from tests.fixtures.console import Console
from tests.stripe.payments import make_event, make_session


async def test_a_payment_is_told_by_all_of_its_names(api: Api, console: Console) -> None:
    """From the list, by an id in the search, and by Stripe's ids; its entry and user are linked."""
    user = await make_user()
    bought = await purchase_of(api, user)
    await console.sign_in(Role.VIEWER)
    listed = await console.get("/payments")
    assert f"/console/payments/{bought.transaction_id}" in listed.text
    told = await console.get(f"/payments/{bought.transaction_id}")
    assert f"/console/users/{user.user_id}/entries/1" in told.text
    assert "checkout.session.completed" in told.text
    for name in (bought.stripe_session_id, bought.payment_intent_id):
        led = await console.get("/payments", params={"id": f" {name} "})
        assert led.headers["location"] == f"/console/payments/{name}"
        assert (await console.client.get(led.headers["location"])).status_code == 200
    assert f'<a href="/console/users/{user.user_id}" title="user:{user.user_id}">the user</a>' in (
        told.text
    )
    assert "Refund it" not in told.text
    await console.sign_in(Role.SUPPORT)
    assert "Refund it" in (await console.get(f"/payments/{bought.transaction_id}")).text


async def test_a_payment_that_credited_nobody_says_why(api: Api, console: Console) -> None:
    """In the sentence that the unmatched payment has."""
    await api.deliver(make_event(make_session(await make_user(), id="cs_1", amount_total=1)))
    await console.sign_in(Role.VIEWER)
    told = await console.get("/payments/cs_1")
    assert "Credited nobody" in told.text
    assert "AMOUNT_MISMATCH" in told.text


@pytest.mark.parametrize(
    "tab", ["purchases", "disputed", "refunded", "partly_refunded", "orders", "reversals"]
)
async def test_every_list_is_shown_also_with_nothing_in_it(console: Console, tab: str) -> None:
    """And says that there is nothing."""
    await console.sign_in(Role.VIEWER)
    page = await console.get(f"/payments?tab={tab}&user={uuid.uuid4()}")
    assert page.status_code == 200
    assert "There are none." in page.text


@pytest.mark.parametrize(
    ("name", "status"),
    [("pi_nobody", 404), ("ch_1", 422), ("a/b?c#d", 404), ("%", 404), ("<b>\r\nx: y", 404)],
)
async def test_what_nobody_knows_is_said(console: Console, name: str, status: int) -> None:
    """Whatever is typed leads to a page of ours that says so, and nowhere else."""
    await console.sign_in(Role.VIEWER)
    led = await console.get("/payments", params={"id": name})
    assert led.headers["location"].startswith("/console/payments/")
    answer = await console.client.get(led.headers["location"])
    assert answer.status_code == status
    assert "<b>" not in answer.text
