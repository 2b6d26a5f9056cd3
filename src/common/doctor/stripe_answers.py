"""Asks Stripe, once, what the checks about it look at."""

import asyncio
import datetime as dt
import time
from dataclasses import dataclass

import stripe

from src.common.settings import Settings
from src.common.stripe import gateway
from src.common.stripe.gateway_errors import PermissionMissing
from src.common.stripe.lookup import HANDLED_TYPES
from src.common.stripe.permissions import is_restricted, missing_permissions
from src.common.stripe.wire import WebhookEndpoint

OUR_PATHS = ("/webhook", "/stripe-webhook")
"""How the address of an endpoint of ours ends."""


@dataclass(frozen=True, kw_only=True)
class StripeAnswers:
    """What Stripe said."""

    endpoints: tuple[WebhookEndpoint, ...] | None
    """The enabled ones that lead to us; None where our key may not ask."""
    others: int
    """How many more there are, disabled or leading elsewhere."""
    missing_types: tuple[str, ...]
    """Types of events that we handle and that no endpoint of ours gets."""
    api_version: str
    """The version of Stripe's API that our library was made for."""
    clock_ahead_seconds: float | None
    """How far this machine's clock is before Stripe's; None where it did not say. To a second."""
    missing_permissions: tuple[str, ...]
    """What a restricted key lacks."""


def ask_stripe(settings: Settings) -> StripeAnswers:
    """Stripe's answers; the settings have a key.

    Raises:
        StripeGatewayError: it does not answer, or refuses our key.
    """
    return asyncio.run(_ask(settings))


async def _ask(settings: Settings) -> StripeAnswers:
    found: list[WebhookEndpoint] | None
    async with gateway.open_gateway(settings) as opened:
        stripe_s = gateway.configured(opened)
        began = time.time()
        try:
            found, date = await stripe_s.webhook_endpoints()
        except PermissionMissing:
            found, date = None, None
        ours_now = (began + time.time()) / 2
        missing = await missing_permissions(stripe_s) if is_restricted(settings) else []
    ours = [each for each in found or [] if _leads_to_us(each)]
    return StripeAnswers(
        endpoints=None if found is None else tuple(ours),
        others=len(found or []) - len(ours),
        missing_types=tuple(sorted(_missing_types(ours))),
        api_version=stripe.api_version,
        clock_ahead_seconds=_ahead(ours_now, date),
        missing_permissions=tuple(missing),
    )


def _leads_to_us(endpoint: WebhookEndpoint) -> bool:
    address = endpoint.url.partition("?")[0].rstrip("/")
    return endpoint.status == "enabled" and address.endswith(OUR_PATHS)


def _missing_types(endpoints: list[WebhookEndpoint]) -> frozenset[str]:
    wanted = {each for endpoint in endpoints for each in endpoint.enabled_events}
    groups = {each.removesuffix("*") for each in wanted if each.endswith("*")}
    return frozenset(
        each
        for each in HANDLED_TYPES
        if each not in wanted and not any(each.startswith(group) for group in groups)
    )


def _ahead(ours: float, date: dt.datetime | None) -> float | None:
    # Stripe's is cut to the second: half of one lies nearest.
    return None if date is None else ours - (date.timestamp() + 0.5)
