"""Paying back in the console: shown first, paid once for each form, above limits by request."""

import uuid

import httpx
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.approvals.asking import Asked
from src.common.approvals.operations import request_or_ask
from src.common.async_database import run_in_async_database_transaction
from src.common.models.transaction import Transaction
from src.common.models.user import User
from src.common.purchases.refunds import RefundWish
from src.console.permissions import Role
from src.offline_stripe import OfflineStripe, Trouble, TroubleKind
from tests.api.stripe_side import buy, deliver_all, offline_stripe
from tests.approvals.requests import NOTHING_ALONE
from tests.credits.books import booked_balance
from tests.fixtures.api import Api, make_user
from tests.fixtures.console import Console


async def bought(
    api: Api, offline: OfflineStripe, user: User | None = None, option: str = "500"
) -> Transaction:
    """A purchase at an offline Stripe, which the console asks as well; of somebody new."""
    user = user or await make_user()
    await buy(api, offline, user.user_id, option)
    await deliver_all(api, offline)
    return await run_in_async_database_transaction(
        lambda session: session.scalars(
            select(Transaction).where(
                Transaction.user_id == user.user_id, Transaction.refunded_cents == 0
            )
        ).one()
    )


async def balance(purchase: Transaction) -> int:
    """What the buyer has."""
    return await run_in_async_database_transaction(
        lambda session: booked_balance(session, purchase.user_id)
    )


async def refund_form(console: Console, purchase: Transaction, amount: str) -> httpx.Response:
    """What a refund will do, shown."""
    address = f"/purchases/{purchase.transaction_id}/refund"
    page = await console.get(address)
    return await console.send(page, address, money=amount, reason="not wanted")


async def test_a_refund_is_shown_and_then_paid_once(console: Console, api: Api) -> None:
    """However often the confirmed form is sent."""
    offline = offline_stripe(api)
    purchase = await bought(api, offline)
    await console.sign_in(Role.SUPPORT)
    address = f"/purchases/{purchase.transaction_id}/refund"
    shown = await refund_form(console, purchase, "2")
    assert "<dt>Paid back</dt><dd>2.00 USD</dd>" in shown.text
    assert f'<a href="/console/payments/{purchase.transaction_id}">Cancel' in shown.text
    for _ in range(2):
        assert (await console.send(shown, address)).status_code == 303
    assert await balance(purchase) == 300
    assert len(list(offline.account.all("refund"))) == 1


async def test_a_refund_with_consent_is_paid_once(console: Console, api: Api) -> None:
    """Asked for by one, consented to by another: Stripe pays with the request's own key."""
    offline = offline_stripe(api)
    purchase = await bought(api, offline)

    def work(session: Session) -> uuid.UUID:
        wish = RefundWish(purchase.transaction_id, "k", "user:somebody", 200, "not wanted")
        asked = request_or_ask(session, wish, NOTHING_ALONE)
        assert isinstance(asked, Asked)
        return asked.approval.approval_id

    request_id = await run_in_async_database_transaction(work)
    await console.sign_in(Role.ADMIN)
    address = f"/approvals/{request_id}"
    shown = await console.send(await console.get(address), address, do="consent", note="")
    for _ in range(2):
        assert (await console.send(shown, address)).status_code == 303
    assert await balance(purchase) == 300
    assert len(list(offline.account.all("refund"))) == 1
    assert "re_" in (await console.get(address)).text


async def test_whoever_got_no_answer_goes_on_with_the_same_form(console: Console, api: Api) -> None:
    """Stripe was away: the page says that nobody knows, and going on pays once."""
    offline = offline_stripe(api)
    purchase = await bought(api, offline)
    await console.sign_in(Role.SUPPORT)
    address = f"/purchases/{purchase.transaction_id}/refund"
    shown = await refund_form(console, purchase, "2.00")
    offline.troubles.add(Trouble(TroubleKind.ERROR, times=50))
    failed = await console.send(shown, address)
    assert (failed.status_code, "nobody knows yet" in failed.text) == (502, True)
    assert "Cancel" not in failed.text, "it may have been done"
    offline.troubles.clear()
    assert console.hidden(failed, address)["form_key"] == console.hidden(shown, address)["form_key"]
    for page in (failed, shown):
        assert (await console.send(page, address)).status_code == 303
    assert len(list(offline.account.all("refund"))) == 1
    assert await balance(purchase) == 300


async def test_a_refund_above_the_limit_becomes_a_request(console: Console, api: Api) -> None:
    """The second large one of a day to one user: nothing is paid, and one's own has no button."""
    offline = offline_stripe(api)
    user = await make_user()
    await console.sign_in(Role.ADMIN)
    for is_first in (True, False):
        purchase = await bought(api, offline, user, "10000")
        address = f"/purchases/{purchase.transaction_id}/refund"
        shown = await refund_form(console, purchase, "")
        assert ("once another person consents" in shown.text) is not is_first
        answer = await console.send(shown, address)
        assert len(list(offline.account.all("refund"))) == 1
    page = await console.client.get(answer.headers["location"])
    assert ("a refund of 60.00 USD" in page.text, ">Consent<" in page.text) == (
        True,
        False,
    )


async def test_what_cannot_be_paid_back_is_said_at_the_form(console: Console, api: Api) -> None:
    """With what is left, as people write it."""
    purchase = await bought(api, offline_stripe(api))
    await console.sign_in(Role.SUPPORT)
    for amount, sentence in (
        ("5.01", "5.00 USD of the payment are left"),
        ("4.999", "Amount: an amount in USD, such as 4.99"),
        ("4,99", "Amount: an amount in USD, such as 4.99"),
        ("0", "Amount: from 0.01 USD to"),
    ):
        answer = await refund_form(console, purchase, amount)
        assert (answer.status_code, sentence in answer.text) == (422, True), answer.text
        assert "Leave empty for all that is left: 5.00 USD." in answer.text
