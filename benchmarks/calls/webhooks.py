"""Stripe's events over HTTP: a paid Checkout Session each, signed as Stripe signs."""

import json
import uuid
from typing import Any

from benchmarks.calls.base import Refused
from benchmarks.calls.http import ENV, OK, HttpCalls
from benchmarks.workload import Operation
from src.common.purchases.packages import PACKAGES
from src.common.stripe.signatures import sign
from src.offline_stripe.account import API_VERSION
from src.offline_stripe.shapes import SESSION

WEBHOOK_SECRET = "whsec_of_the_benchmark"  # noqa: S105  of a server that lives for this run
_USER, _NAME, _ENV = "<user>", "<name>", "<env>"


def _template() -> str:
    """An event as Stripe writes it, with places for whose it is and for what makes it unique."""
    package = PACKAGES[0]
    session: dict[str, Any] = {
        **SESSION,
        "id": f"cs_test_{_NAME}",
        "object": "checkout.session",
        "amount_subtotal": package.price_cents,
        "amount_total": package.price_cents,
        "client_reference_id": None,
        "currency": package.currency,
        "metadata": {
            "user_id": _USER,
            "credits": str(package.credits),
            "package_id": package.package_id,
            "env": _ENV,
        },
        "payment_intent": f"pi_{_NAME}",
        "payment_status": "paid",
        "status": "complete",
    }
    event = {
        "id": f"evt_{_NAME}",
        "object": "event",
        "api_version": API_VERSION,
        "created": 1_800_000_000,
        "data": {"object": session},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": "checkout.session.completed",
    }
    return json.dumps(event, indent=2)


_EVENT = _template()


def event_of(user_id: uuid.UUID, name: str, env: str = ENV) -> str:
    """An event of this user's payment to this deployment, which is called so."""
    return _EVENT.replace(_USER, str(user_id)).replace(_NAME, name).replace(_ENV, env)


class HttpWebhook(HttpCalls):
    """`POST /api/v1/webhook`: a payment of a user who was not credited for it before."""

    tops_up = False
    path = "/api/v1/webhook"

    async def call(self, caller: int, operation: Operation) -> bool:
        """Send the operation's event; whether it had been processed before."""
        body = event_of(operation.user_id, operation.key.replace(":", ""))
        header = f"Stripe-Signature: {sign(body, WEBHOOK_SECRET)}"
        status, answer, _ = await self.post(caller, self.path, header, body)
        became = json.loads(answer)["status"] if status == OK else None
        if became not in ("processed", "already_processed"):
            raise Refused(f"HTTP {status} {answer[:200].decode(errors='replace')}")
        return bool(became == "already_processed")


class HttpWebhookEcho(HttpWebhook):
    """The route that reads the same body and answers."""

    replays = False
    path = "/benchmark/webhook"
