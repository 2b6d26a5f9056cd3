"""Deliver webhooks over HTTP, for as long as the offline Stripe is served."""

import asyncio

import httpx
import structlog

from src.offline_stripe.server import OfflineStripe
from src.offline_stripe.webhooks import Delivery

LOOK_EVERY_SECONDS = 0.05

log = structlog.get_logger(__name__)


async def deliver_webhooks(offline: OfflineStripe, client: httpx.AsyncClient) -> None:
    """Send what is due, in order, until cancelled."""
    while True:
        with offline.lock:
            offline.advance(0)
            due = offline.webhooks.due()
        for delivery in due:
            status = await _send(client, delivery)
            with offline.lock:
                offline.webhooks.answered(delivery.delivery_id, status)
        await asyncio.sleep(LOOK_EVERY_SECONDS)


async def _send(client: httpx.AsyncClient, delivery: Delivery) -> int | None:
    """One attempt; the answer's status, None if there was none."""
    status: int | None = None
    try:
        response = await client.post(delivery.url, content=delivery.body, headers=delivery.headers)
        status = response.status_code
    except (httpx.HTTPError, httpx.InvalidURL):
        pass  # nobody is there: tried again later, as any failure is
    log.info(
        "offline_stripe.webhook",
        event_id=delivery.event_id,
        type=delivery.event_type,
        url=delivery.url,
        attempt=delivery.attempt,
        status=status,
    )
    return status
