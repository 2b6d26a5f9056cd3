"""Finds out, by asking, which permissions a restricted Stripe key lacks.

Stripe tells no key's permissions; it names the one that is missing where something is refused.
So everything we do at Stripe is tried with objects that there are none of: nothing comes of it.
"""

import asyncio
import datetime as dt
import uuid
from collections.abc import Awaitable, Callable

from src.common.models.checkout_order import CheckoutOrder
from src.common.settings import Settings, get_settings
from src.common.stripe.gateway import Gateway
from src.common.stripe.gateway_errors import PermissionMissing, StripeGatewayError
from src.common.stripe.listed import Window

_THEN = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_NEVER = Window(_THEN, _THEN)
_NEEDED: tuple[Callable[[Gateway], Awaitable[object]], ...] = (
    lambda gateway: gateway.touch_customer("cus_none"),
    lambda gateway: gateway.create_checkout_session(
        _order_of_nobody(), customer_id="cus_none", name="None", settings=get_settings()
    ),
    lambda gateway: gateway.create_refund("pi_none", 1, key=uuid.uuid4().hex, reason=None),
    lambda gateway: gateway.sessions(_NEVER, None),
    lambda gateway: gateway.payments(_NEVER, None),
    lambda gateway: gateway.retrieve_charge("ch_none"),
    lambda gateway: gateway.refunds(_NEVER, None),
    lambda gateway: gateway.disputes(_NEVER, None),
    lambda gateway: gateway.retrieve_invoice("in_none"),
    lambda gateway: gateway.payments_of_invoice("in_none"),
    lambda gateway: gateway.credit_notes(_NEVER, None),
    lambda gateway: gateway.events(_NEVER, None),
)


def is_restricted(settings: Settings) -> bool:
    """Whether the configured key is one that may lack permissions (`rk_…`)."""
    key = settings.stripe_secret_key
    return key is not None and key.get_secret_value().startswith("rk_")


async def missing_permissions(gateway: Gateway) -> list[str]:
    """The permissions that our key lacks, in Stripe's words (`rak_charge_read`).

    Raises:
        StripeGatewayError: STRIPE_GATEWAY_ERROR, Stripe does not answer.
    """
    found = await asyncio.gather(*(_missing(each(gateway)) for each in _NEEDED))
    return sorted({each for each in found if each is not None})


async def _missing(attempt: Awaitable[object]) -> str | None:
    try:
        await attempt
    except PermissionMissing as error:
        return error.permission or error.message
    except StripeGatewayError as error:
        if not (error.is_refusal or error.code == "resource_missing"):
            raise
    return None


def _order_of_nobody() -> CheckoutOrder:
    return CheckoutOrder(
        order_id=uuid.uuid4(),
        user_id=uuid.UUID(int=0),
        package_id="none",
        credits=1,
        amount_cents=100,
        currency="usd",
        success_url="https://example.com",
        cancel_url="https://example.com",
        allows_discount=False,
        allows_tax=False,
    )
