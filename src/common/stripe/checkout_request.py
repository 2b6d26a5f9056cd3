"""The parameters of a Checkout Session: what an account's defaults would otherwise decide.

What a request leaves open, the account's own defaults decide, and they change without us: see
decision 0033.
"""

import hashlib
import json
from typing import Any

from src.common.models.checkout_order import CheckoutOrder
from src.common.settings import Settings


def session_parameters(
    order: CheckoutOrder, *, customer_id: str, name: str, settings: Settings
) -> dict[str, Any]:
    """The parameters of an order's Checkout Session; `name` is the package's."""
    metadata = {
        "user_id": str(order.user_id),
        "credits": str(order.credits),
        "package_id": order.package_id,
        "env": settings.env,
        "order_id": str(order.order_id),
    }
    price = {
        "currency": order.currency,
        "unit_amount": order.amount_cents,
        "product_data": {"name": f"{name}: {order.credits:,} credits"},
        "tax_behavior": settings.stripe_tax_behavior,
    }
    methods = settings.payment_method_types
    parameters: dict[str, Any] = {
        "mode": "payment",
        "ui_mode": "hosted_page",
        "customer": customer_id,
        "client_reference_id": str(order.order_id),
        "line_items": [{"quantity": 1, "price_data": price}],
        "metadata": metadata,
        "payment_intent_data": {"metadata": metadata, "capture_method": "automatic_async"},
        "success_url": order.success_url,
        "cancel_url": order.cancel_url,
        "allowed_payment_method_types": list(methods),
        "wallet_options": {"link": {"display": "auto" if "link" in methods else "never"}},
        "allow_promotion_codes": order.allows_discount,
        "automatic_tax": {"enabled": order.allows_tax},
        "tax_id_collection": {"enabled": False},
        "invoice_creation": {"enabled": False},
        "adaptive_pricing": {"enabled": False},
        "managed_payments": {"enabled": False},
    }
    if order.allows_tax:
        parameters["automatic_tax"]["liability"] = {"type": "self"}
        parameters["customer_update"] = {"address": "auto"}
    return parameters


def idempotency_key(order: CheckoutOrder, parameters: dict[str, Any]) -> str:
    """Stripe's key of a request: the same order, asked for in the same way, is the same session.

    The parameters are part of it, for they follow our settings and release, which may change after
    Stripe's answer was lost: with other parameters under the same key it refuses (docs.stripe.com/
    api/idempotent_requests), and the order had no page until it forgot the key. A second session
    leads to no second payment: nobody was told the page of the first, and of two that are made at
    once `open_order` keeps one.
    """
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:16]
    return f"flashslides-order-{order.order_id}-{digest}"
