"""Says at the start which permissions a restricted Stripe key lacks."""

import asyncio
import threading

import structlog

from src.common.settings import Settings
from src.common.stripe.gateway import configured, open_gateway
from src.common.stripe.gateway_errors import StripeGatewayError
from src.common.stripe.permissions import is_restricted, missing_permissions

logger = structlog.get_logger(__name__)


def tell_of_missing_permissions(settings: Settings) -> threading.Thread:
    """Ask Stripe in a thread of its own, and log each permission that the key lacks."""
    work = threading.Thread(target=_tell, args=[settings], name="stripe permissions", daemon=True)
    work.start()
    return work


def _tell(settings: Settings) -> None:
    if not is_restricted(settings):
        return
    try:
        missing = asyncio.run(_ask(settings))
    except StripeGatewayError as error:
        logger.warning("Nobody knows what the Stripe key may do", reason=error.message)
        return
    for permission in missing:
        logger.error("The Stripe key lacks a permission: add it at Stripe", permission=permission)


async def _ask(settings: Settings) -> list[str]:
    async with open_gateway(settings) as gateway:
        return await missing_permissions(configured(gateway))
