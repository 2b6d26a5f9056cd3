"""Stripe's side of the API's tests: an offline Stripe in this process, and what it cannot do."""

import asyncio
import json
import uuid
from collections.abc import Mapping
from typing import Any

import httpx
import stripe
from pydantic import SecretStr

from src.common.stripe.gateway import Gateway
from src.offline_stripe import InProcessClient, OfflineStripe
from tests.api.tokens import make_token
from tests.fixtures.api import Api

CHECKOUT = "/create-checkout-session"


def open_stripe(api: Api, client: stripe.HTTPClient, *, timeout_seconds: float = 5) -> None:
    """Have the API ask this client for Stripe."""
    api.app.state.settings = api.app.state.settings.model_copy(
        update={
            "stripe_secret_key": SecretStr("sk_test_1"),
            "stripe_payment_method_types": "card,sepa_debit",
        }
    )
    library = stripe.StripeClient("sk_test_1", http_client=client)
    api.app.state.gateway = Gateway(library, timeout_seconds)


def offline_stripe(api: Api) -> OfflineStripe:
    """An empty Stripe that the API asks."""
    offline = OfflineStripe(seed="api")
    offline.add_endpoint("http://test/webhook", secret="whsec_test")
    open_stripe(api, InProcessClient(offline))
    return offline


class Silent(InProcessClient):
    """A Stripe that takes the request and never answers."""

    async def request_async(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        post_data: Any = None,
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Do what was asked, and say nothing."""
        self.request(method, url, headers, post_data)
        await asyncio.Event().wait()
        raise AssertionError("nobody sets this event")


class Together(InProcessClient):
    """A Stripe that answers whoever asks for a customer once `parties` have asked."""

    def __init__(self, offline: OfflineStripe, parties: int) -> None:
        super().__init__(offline)
        self._barrier = asyncio.Barrier(parties)

    async def request_async(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        post_data: Any = None,
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """The answer, when everybody is there."""
        if url.endswith("/v1/customers"):
            await self._barrier.wait()
        return await super().request_async(method, url, headers, post_data)


async def click(
    api: Api,
    user_id: uuid.UUID,
    option: str = "500",
    key: str | None = "click",
    host: str = "localhost",
    **body: str,
) -> httpx.Response:
    """Ask for a pay page, of the API by this name of its machine."""
    headers = {"Host": host} | ({} if key is None else {"Idempotency-Key": key})
    wish = {"credit_option": option, **body}
    return await api.call("POST", CHECKOUT, make_token(user_id), json=wish, headers=headers)


async def buy(api: Api, offline: OfflineStripe, user_id: uuid.UUID, option: str = "500") -> str:
    """Ask for a pay page and pay there; the Checkout Session's id."""
    page = await click(api, user_id, option, key=f"buy-{len(sessions(offline))}")
    assert page.status_code == 200, page.text
    [session_id] = [each["id"] for each in sessions(offline) if each["url"] == page.json()["url"]]
    offline.pay(session_id)
    return str(session_id)


def sessions(offline: OfflineStripe) -> list[dict[str, Any]]:
    """All Checkout Sessions Stripe has."""
    return list(offline.account.all("checkout.session"))


def customers(offline: OfflineStripe) -> list[str]:
    """The ids of all customers Stripe has."""
    return [each["id"] for each in offline.account.all("customer")]


async def deliver_all(api: Api, offline: OfflineStripe) -> list[str]:
    """Send the API every webhook that is due; its answers."""
    answers = [await api.deliver(json.loads(each.body)) for each in offline.webhooks.due()]
    return [answer.json()["status"] for answer in answers]
