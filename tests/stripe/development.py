"""A paid Checkout Session as Stripe would report it, for development and tests.

Shape: Stripe's API reference, "The Checkout Session object", as of the API version below.
"""

import secrets
import time
import uuid
from typing import Any

from src.common.purchases.packages import Package

API_VERSION = "2026-10-28.endive"


def checkout_session(
    *, user_id: uuid.UUID, package: Package, env: str, session_id: str | None = None
) -> dict[str, Any]:
    """A Checkout Session, paid, for `package`."""
    random = secrets.token_hex(12)
    return {
        "id": session_id or f"cs_test_{random}",
        "object": "checkout.session",
        "adaptive_pricing": {"enabled": False},
        "amount_subtotal": package.price_cents,
        "amount_total": package.price_cents,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "cancel_url": None,
        "client_reference_id": None,
        "created": int(time.time()),
        "currency": package.currency,
        "customer": None,
        "invoice": None,
        "livemode": False,
        "metadata": {
            "user_id": str(user_id),
            "credits": str(package.credits),
            "package_id": package.package_id,
            "env": env,
        },
        "mode": "payment",
        "payment_intent": f"pi_{random}",
        "payment_method_types": ["card"],
        "payment_status": "paid",
        "status": "complete",
        "subscription": None,
        "success_url": "https://example.com/success",
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "url": None,
    }


def event(
    data_object: dict[str, Any], event_type: str = "checkout.session.completed"
) -> dict[str, Any]:
    """An event that says something happened to `data_object`."""
    return {
        "id": f"evt_{secrets.token_hex(12)}",
        "object": "event",
        "api_version": API_VERSION,
        "created": int(time.time()),
        "data": {"object": data_object},
        "livemode": data_object.get("livemode", False),
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": event_type,
    }
