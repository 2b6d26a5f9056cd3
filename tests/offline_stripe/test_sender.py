"""Webhooks over HTTP: sent in order, tried again, and a receiver that is away does no harm."""

import asyncio

import httpx
import pytest

from src.offline_stripe.sender import deliver_webhooks
from tests.fixtures.api import until
from tests.offline_stripe.shop import LIFE, Clock, Shop


@pytest.mark.parametrize("failure", [500, None])
async def test_what_failed_is_sent_again(shop: Shop, clock: Clock, failure: int | None) -> None:
    """The first time nobody answers, or badly; the second time every event arrives, in order."""
    received: list[str] = []

    def receive(request: httpx.Request) -> httpx.Response:
        received.append(request.headers["stripe-signature"])
        if clock.now == start and failure is None:
            raise httpx.ConnectError("nobody is there")
        return httpx.Response(failure if clock.now == start and failure else 200)

    start = clock.now
    shop.sell()
    client = httpx.AsyncClient(transport=httpx.MockTransport(receive))
    sending = asyncio.create_task(deliver_webhooks(shop.offline, client))

    async def tried() -> bool:
        return len(received) == len(LIFE)

    async def tried_twice() -> bool:
        return len(received) == 2 * len(LIFE)

    await until(tried)
    clock.now += 1
    await until(tried_twice)

    async def settled() -> bool:
        return {each["pending_webhooks"] for each in shop.offline.account.all("event")} == {0}

    await until(settled)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await client.aclose()
    assert shop.offline.webhooks.next_due_at() is None


async def test_what_goes_wrong_once_does_not_end_the_deliveries(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, and the next look sends what is due."""
    received: list[str] = []

    def receive(request: httpx.Request) -> httpx.Response:
        received.append(request.headers["stripe-signature"])
        return httpx.Response(200)

    def go_wrong(_seconds: int) -> None:
        monkeypatch.undo()
        raise KeyError("session")

    async def sent() -> bool:
        return len(received) == len(LIFE)

    shop.sell()
    monkeypatch.setattr(shop.offline, "advance", go_wrong)
    async with httpx.AsyncClient(transport=httpx.MockTransport(receive)) as client:
        sending = asyncio.create_task(deliver_webhooks(shop.offline, client))
        await until(sent)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
