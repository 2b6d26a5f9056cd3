"""The pages a customer comes back to on a developer's machine: what they say, and to whom."""

import re
import uuid
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from fastapi import FastAPI, Request
from pydantic import SecretStr
from sqlalchemy import select

from src.api.src.main import create_app
from src.api.src.routes import checkout_pages
from src.common.async_database import run_in_async_database_transaction
from src.common.credits import ledger
from src.common.exceptions import SettingsError
from src.common.models.checkout_order import CheckoutOrder
from src.common.settings import get_settings
from src.common.stripe.checkout import plan_checkout
from src.offline_stripe import Object, OfflineStripe, Trouble, TroubleKind
from tests.api.stripe_side import buy, click, deliver_all, offline_stripe, sessions
from tests.fixtures.api import Api, balance_of, client_of, fetch, make_user

PERSON = {"email": "ada@example.com", "first_name": "Ada", "last_name": "Lovelace"}


class Shown(HTMLParser):
    """A page as somebody reads it: facts by name, links by name, forms' addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.facts: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self.forms: list[str] = []
        self._tag, self._named, self._href = "", "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where we are."""
        named = dict(attrs)
        self._tag = tag
        if tag == "form":
            assert named["method"] == "post"
            self.forms.append(str(named["action"]))
        if tag == "a":
            self._href = str(named["href"])

    def handle_data(self, data: str) -> None:
        """Note what it says there."""
        if self._tag == "dt":
            self._named = data
        if self._tag == "dd":
            self.facts[self._named] = data
        if self._tag == "a":
            self.links[data] = self._href

    def handle_endtag(self, tag: str) -> None:
        """What follows is elsewhere."""
        del tag
        self._tag = ""


async def success(api: Api, session_id: str) -> httpx.Response:
    """What the browser asks for, coming from the pay page."""
    return await api.client.get("/checkout/success", params={"session_id": session_id})


async def facts(api: Api, session_id: str) -> Mapping[str, str]:
    """What the success page says."""
    answer = await success(api, session_id)
    assert answer.status_code == 200, answer.text
    return Shown(answer.text).facts


def newest(offline: OfflineStripe) -> Object:
    """The Checkout Session that was made last."""
    return sessions(offline)[-1]


async def test_without_settings_the_return_pages_are_ours(api: Api) -> None:
    """Those of the address at which the API was asked; with settings they are the configured."""
    offline, user = offline_stripe(api), await make_user()
    await click(api, user.user_id)
    assert newest(offline)["success_url"] == (
        "http://localhost/checkout/success?session_id={CHECKOUT_SESSION_ID}"
    )
    assert newest(offline)["cancel_url"] == "http://localhost/checkout/cancelled"
    api.app.state.settings = api.app.state.settings.model_copy(
        update={"checkout_success_url": "https://app.test/paid", "checkout_cancel_url": "https://c"}
    )
    await click(api, user.user_id, key="configured")
    assert newest(offline)["success_url"] == "https://app.test/paid"


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "127.0.0.1:8001", "[::1]:8000"])
async def test_this_machine_has_several_names(api: Api, host: str) -> None:
    """The pages are at the one by which the API was asked; the same key is the same request."""
    offline, user = offline_stripe(api), await make_user()
    first = await click(api, user.user_id)
    again = await click(api, user.user_id, host=host)
    assert (again.status_code, again.json()) == (200, first.json()), again.text
    assert again.headers["Idempotent-Replayed"] == "true"
    await click(api, user.user_id, key="another", host=host)
    assert newest(offline)["cancel_url"] == f"http://{host}/checkout/cancelled"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "localhost@evil.example",
        "evil.example\\@localhost",
        "localhost:1@evil.example",
        "[",
        "",
    ],
)
async def test_another_host_is_led_nowhere(api: Api, host: str) -> None:
    """Whoever writes the request chooses it: no pay page leads there."""
    offline, user = offline_stripe(api), await make_user()
    refused = await click(api, user.user_id, host=host)
    assert refused.json()["detail"]["error_type"] == "SETTINGS_INVALID"
    assert sessions(offline) == []


@pytest.mark.parametrize("has_ours", [False, True])
async def test_pages_of_the_same_name_of_somebody_s_own_are_not_ours(*, has_ours: bool) -> None:
    """An application of somebody's own may have handlers of these names, and none of our pages."""
    app = FastAPI()
    if has_ours:
        app.include_router(checkout_pages.router)

    async def show_success(request: Request) -> str | None:
        pages = checkout_pages.pages_of(request, get_settings())
        return None if pages is None else pages.cancel_url

    app.get("/mine")(show_success)
    app.get("/cancelled", name="show_cancelled")(show_success)
    async with client_of(app) as own:
        answer = await own.client.get("/mine")
    assert answer.json() == ("http://localhost/checkout/cancelled" if has_ours else None)


async def test_the_success_page_credits_and_says_the_balance_before_and_after(api: Api) -> None:
    """Before any webhook; a second look, and one after the webhooks, changes and says the same."""
    offline, user = offline_stripe(api), await make_user()
    await run_in_async_database_transaction(
        lambda session: ledger.grant(session, user.user_id, 40, key="start")
    )
    session_id = await buy(api, offline, user.user_id, "1000")
    expected = {
        "Package": "Basic",
        "Credits": "1,000",
        "Paid": "9.00 USD",
        "Balance before": "40",
        "Balance after": "1,040",
    }
    assert await facts(api, session_id) == expected
    assert await facts(api, session_id) == expected
    await deliver_all(api, offline)
    assert await facts(api, session_id) == expected
    assert await balance_of(user.user_id) == 1_040


async def test_what_was_spent_since_is_told_apart(api: Api) -> None:
    """What the purchase made of the balance stays as it was; today's balance stands beside it."""
    offline, user = offline_stripe(api), await make_user()
    session_id = await buy(api, offline, user.user_id)
    await success(api, session_id)
    await run_in_async_database_transaction(
        lambda session: ledger.spend(session, user.user_id, 20, key="spend")
    )
    shown = await facts(api, session_id)
    assert (shown["Balance after"], shown["Balance now"]) == ("500", "480")


async def test_the_page_says_nothing_of_the_person(api: Api) -> None:
    """Neither name, e-mail nor id; no cache keeps it, no other page learns its address."""
    offline, user = offline_stripe(api), await make_user(**PERSON)
    answer = await success(api, await buy(api, offline, user.user_id))
    for private in (*PERSON.values(), str(user.user_id)):
        assert private not in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert re.findall(r"<script|src=|@import|url\(", answer.text) == []


async def test_what_is_not_paid_is_said_to_be_so(api: Api) -> None:
    """On its way, failed, expired: no balance, and what it would have bought."""
    offline, user = offline_stripe(api), await make_user()
    await click(api, user.user_id)
    session_id = newest(offline)["id"]
    offline.pay(session_id, "sepa")
    answer = await success(api, session_id)
    assert "Your payment is on its way" in answer.text
    bought = {"Package": "Starter", "Credits": "500", "Price": "5.00 USD"}
    assert Shown(answer.text).facts == bought
    offline.settle_payment(session_id, succeeded=False)
    await deliver_all(api, offline)
    answer = await success(api, session_id)
    assert "Your payment has failed" in answer.text
    assert Shown(answer.text).facts == bought


@pytest.mark.parametrize(
    "session_id", ["", "cs_test_none", "cs_\x00", "'><script>alert(1)</script>"]
)
async def test_an_unknown_session_is_not_found(api: Api, session_id: str) -> None:
    """A page says so; nothing of the address is in it."""
    offline_stripe(api)
    answer = await success(api, session_id)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "There is no such Checkout Session" in answer.text
    assert "script" not in answer.text


async def test_while_stripe_is_down_the_page_says_so(api: Api) -> None:
    """Nothing is done; a later look credits."""
    offline, user = offline_stripe(api), await make_user()
    session_id = await buy(api, offline, user.user_id)
    offline.troubles.add(Trouble(TroubleKind.ERROR, times=50))
    answer = await success(api, session_id)
    assert (answer.status_code, await balance_of(user.user_id)) == (502, 0)
    assert "role=alert" in answer.text
    offline.troubles.clear()
    assert (await facts(api, session_id))["Balance after"] == "500"


async def test_buying_again_leads_to_another_pay_page(api: Api) -> None:
    """Of the same package for the same user; the button pressed twice leads to the same one."""
    offline, user = offline_stripe(api), await make_user()
    session_id = await buy(api, offline, user.user_id, "1000")
    [again] = Shown((await success(api, session_id)).text).forms
    address = urljoin("/checkout/success", again)
    first, second = [await api.client.post(address) for _ in range(2)]
    assert (first.status_code, first.headers["Location"]) == (303, newest(offline)["url"])
    assert second.headers["Location"] == first.headers["Location"]
    assert len(sessions(offline)) == 2
    offline.pay(newest(offline)["id"])
    assert (await facts(api, newest(offline)["id"]))["Balance after"] == "2,000"
    orders = await fetch(select(CheckoutOrder.user_id).distinct())
    assert orders == user.user_id


async def test_what_is_no_longer_sold_is_not_bought_again(api: Api) -> None:
    """A page says why, and nothing is ordered."""
    offline, user = offline_stripe(api), await make_user()
    session_id = await buy(api, offline, user.user_id)
    [again] = Shown((await success(api, session_id)).text).forms
    settings = api.app.state.settings
    api.app.state.settings = settings.model_copy(update={"credit_packages": settings.packages[1:]})
    answer = await api.client.post(urljoin("/checkout/success", again))
    assert (answer.status_code, len(sessions(offline))) == (422, 1)
    assert "credit_option: must be one of" in answer.text


async def test_every_link_leads_somewhere(api: Api) -> None:
    """Back to the front page, below a proxy's path too; to the offline Stripe where it is there."""
    offline, user = offline_stripe(api), await make_user()
    session_id = await buy(api, offline, user.user_id)
    ours = Shown((await success(api, session_id)).text).links
    assert list(ours.values()) == ["../"]
    api.app.state.settings = api.app.state.settings.model_copy(
        update={"stripe_api_base_url": "http://127.0.0.1:12111"}
    )
    links = Shown((await success(api, session_id)).text).links
    assert list(links.values()) == [f"http://127.0.0.1:12111/c/pay/{session_id}", "../"]
    cancelled = Shown((await api.client.get("/checkout/cancelled")).text).links
    assert list(cancelled.values()) == ["http://127.0.0.1:12111/", "../"]
    assert urlsplit(urljoin("http://a.test/below/checkout/success?s=1", "../")).path == "/below/"


async def test_elsewhere_there_are_no_such_pages(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """404 as for any address nobody serves; and a checkout has no page unless one is configured."""
    environment: dict[str, Any] = {"ENV": "staging", "DATABASE_PASSWORD": "of-the-deployment"}
    for name, value in {
        **environment,
        "AUTH_JWT_SECRET": "x",
        "STRIPE_SECRET_KEY": "sk_live_x",
        "STRIPE_WEBHOOK_SECRET": "x",
    }.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    async with client_of(create_app()) as deployed:
        for method, path in (("GET", "success"), ("GET", "cancelled"), ("POST", "again")):
            answer = await deployed.client.request(method, f"/checkout/{path}")
            assert (answer.status_code, answer.json()["detail"]["error_type"]) == (404, "NOT_FOUND")

    offline, user = offline_stripe(api), await make_user()
    api.app.state.settings = api.app.state.settings.model_copy(
        update={"env": "staging", "database_password": SecretStr("of-the-deployment")}
    )
    refused = await click(api, user.user_id)
    assert refused.json()["detail"]["error_type"] == "SETTINGS_INVALID"
    assert sessions(offline) == []


@pytest.mark.parametrize("field", ["success_url", "cancel_url"])
def test_an_application_without_these_pages_names_its_own(field: str) -> None:
    """Else nothing is ordered: its customers would be led nowhere."""
    pages = {"checkout_success_url": "https://a.test/", "checkout_cancel_url": "https://b.test/"}
    settings = get_settings().model_copy(update=pages | {f"checkout_{field}": None})
    with pytest.raises(SettingsError, match=f"CHECKOUT_{field.upper()}"):
        plan_checkout(settings, uuid.uuid4(), "500", key="k")
