"""Stripe's webhook: verify the raw body, store the event, process it once."""

import structlog
from fastapi import APIRouter, Request

from src.api.src import metrics
from src.api.src.dependencies import SettingsOf
from src.api.src.errors import ALWAYS, DATABASE, error_responses
from src.api.src.schemas.webhooks import WebhookOut
from src.common.async_database import run_in_async_database_transaction
from src.common.exceptions import DatabaseBusy
from src.common.settings import Settings
from src.common.stripe import inbox
from src.common.stripe.signatures import verify_signature
from src.common.stripe.wire import Event, parse_event

router = APIRouter(tags=["stripe"])
logger = structlog.get_logger(__name__)

ATTEMPTS = 2
"""A failed event is tried again at once, except by a busy database; then Stripe sends it again."""


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
                "description": "Stripe's signature of the body; without it the answer is 400.",
            }
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object"}}},
            "description": "A Stripe event, exactly as signed.",
        },
    },
)
@router.post("/stripe-webhook", include_in_schema=False)
async def receive_event(request: Request, settings: SettingsOf) -> WebhookOut:
    """Answer 2xx only for what is stored and settled; anything else Stripe sends again."""
    body = await request.body()
    signature = request.headers.get("Stripe-Signature")
    verify_signature(body, signature, settings.stripe_webhook_secrets)
    event = parse_event(body)
    await run_in_async_database_transaction(lambda session: inbox.store_event(session, event, body))
    answer = await _process(event, settings)
    metrics.WEBHOOK_EVENTS.labels(answer=answer).inc()
    logger.info("Stripe event", event_id=event.id, type=event.type, answer=answer)
    return WebhookOut(status=answer)


async def _process(event: Event, settings: Settings) -> inbox.EventAnswer:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await run_in_async_database_transaction(
                lambda session: inbox.process_event(
                    session, livemode=event.livemode, event_id=event.id, settings=settings
                )
            )
        except Exception as error:
            metrics.WEBHOOK_EVENTS.labels(answer="failed").inc()
            logger.warning(
                "Stripe event failed",
                event_id=event.id,
                type=event.type,
                attempt=attempt,
                error=type(error).__name__,
            )
            await _record(event, error)
            if attempt == ATTEMPTS or isinstance(error, DatabaseBusy):
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


async def _record(event: Event, failure: Exception) -> None:
    """Have the stored row say why."""
    await run_in_async_database_transaction(
        lambda session: inbox.record_failure(
            session, livemode=event.livemode, event_id=event.id, error=failure
        )
    )
