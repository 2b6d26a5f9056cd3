"""Deliver webhooks over HTTP, for as long as the offline Stripe is served."""

import asyncio

import httpx
import structlog

from src.offline_stripe.server import OfflineStripe
from src.offline_stripe.webhooks import Delivery

LOOK_EVERY_SECONDS = 0.05
AFTER_FAILURE_SECONDS = 1

log = structlog.get_logger(__name__)


async def deliver_webhooks(offline: OfflineStripe, client: httpx.AsyncClient) -> None:
    """Send what is due, in order, until cancelled."""
    while True:
        try:
            await _send_due(offline, client)
        except Exception:  # an edge: what went wrong once must not end the deliveries
            log.exception("offline_stripe.sender_failed")
            await asyncio.sleep(AFTER_FAILURE_SECONDS)
        await asyncio.sleep(LOOK_EVERY_SECONDS)


async def _send_due(offline: OfflineStripe, client: httpx.AsyncClient) -> None:
    with offline.lock:
        offline.advance(0)
        due = offline.webhooks.due()
    for delivery in due:
        status = await _send(client, delivery)
        with offline.lock:
            offline.webhooks.answered(delivery.delivery_id, status)


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
