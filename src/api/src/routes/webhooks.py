"""Stripe's webhook: verify the raw body, store the event, process it once."""

from typing import TYPE_CHECKING

import structlog
from fastapi import APIRouter, Request

from src.api.src import metrics
from src.api.src.dependencies import GatewayOf, SettingsOf
from src.api.src.errors import ALWAYS, DATABASE, error_responses
from src.api.src.schemas.webhooks import WebhookOut
from src.common.async_database import run_in_async_database_transaction
from src.common.stripe.processing import Processor
from src.common.stripe.signatures import verify_signature
from src.common.stripe.wire import parse_event

if TYPE_CHECKING:
    from src.common.stripe.batches.arrivals import Arrivals

router = APIRouter(tags=["stripe"])
logger = structlog.get_logger(__name__)


@router.post(
    "/webhook",
    summary="Receive a Stripe event",
    responses=error_responses(
        *ALWAYS,
        *DATABASE,
        "WEBHOOK_SIGNATURE_INVALID",
        "WEBHOOK_PAYLOAD_INVALID",
        "WEBHOOK_NOT_CONFIGURED",
    ),
    openapi_extra={
        "parameters": [
            {
                "name": "Stripe-Signature",
                "in": "header",
                "required": True,
                "schema": {"type": "string"},
                "description": "Stripe's signature of the body. Without it the answer is 400.",
            }
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object"}}},
            "description": "A Stripe event, exactly as signed.",
        },
    },
)
@router.post("/webhook/", include_in_schema=False)
@router.post("/stripe-webhook", include_in_schema=False)
@router.post("/stripe-webhook/", include_in_schema=False)
async def receive_event(request: Request, settings: SettingsOf, gateway: GatewayOf) -> WebhookOut:
    """Store the event, settle it, answer. The worker settles what cannot be settled at once."""
    body = await request.body()
    signature = request.headers.get("Stripe-Signature")
    verify_signature(body, signature, settings.stripe_webhook_secrets)
    event = parse_event(body)
    processor = Processor(run_in_async_database_transaction, gateway, settings)
    arrivals: Arrivals | None = getattr(request.app.state, "arrivals", None)
    if arrivals is None:
        answer = await processor.receive(event, body)
    else:
        answer = await arrivals.receive(processor, event, body)
    metrics.WEBHOOK_EVENTS.labels(answer=answer).inc()
    logger.info("Stripe event", event_id=event.id, type=event.type, answer=answer)
    return WebhookOut(status=answer)
