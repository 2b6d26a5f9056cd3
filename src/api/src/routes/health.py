"""Is the process alive, can it serve, and what does it measure?"""

import asyncio
import math

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import false, select
from sqlalchemy.orm import Session

from src.api.src import metrics
from src.api.src.errors import ALWAYS, DATABASE, error_responses
from src.api.src.schemas.health import LivenessOut, ReadinessOut
from src.common import worker_failures
from src.common.async_database import run_in_async_database_transaction
from src.common.credits.drift import drift
from src.common.credits.unbookable import count_unbookable_users
from src.common.exceptions import DatabaseBusy, Unavailable
from src.common.migrations import current_revision, is_behind
from src.common.models.user import User
from src.common.purchases.reconciliations import newest_drift
from src.common.purchases.unmatched import count_open_unmatched_payments
from src.common.stripe.inbox import count_dead_events

logger = structlog.get_logger(__name__)
router = APIRouter(tags=["operations"])

READINESS_TIMEOUT_SECONDS = 2


@router.get("/livez", summary="Is the process alive?", responses=error_responses(*ALWAYS))
async def livez() -> LivenessOut:
    """Answer as long as the process can; touches nothing."""
    return LivenessOut(status="alive")


@router.get(
    "/readyz",
    summary="Can requests be served?",
    responses=error_responses(*ALWAYS, *DATABASE, "NOT_READY"),
)
async def readyz(request: Request) -> ReadinessOut:
    """Answer 200 when the database takes writes and has every migration that this code expects."""

    def work(session: Session) -> str | None:
        found = current_revision(session.connection())
        if found is not None:
            # A lock of no row, refused where the server only reads, as a standby does; its
            # connections are dropped with that answer.
            session.execute(select(User.user_id).where(false()).with_for_update(key_share=True))
        return found

    try:
        async with asyncio.timeout(READINESS_TIMEOUT_SECONDS):
            found = await run_in_async_database_transaction(work)
    except TimeoutError:
        raise DatabaseBusy("The database did not answer in time") from None
    if found is None or is_behind(found):
        expected: str = request.app.state.head_revision
        raise Unavailable(
            f"The database is at revision {found}, this release expects {expected}: "
            "run `flashslides db upgrade`",
            "NOT_READY",
        )
    return ReadinessOut(status="ready", revision=found)


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=PlainTextResponse,
    responses=error_responses(*ALWAYS),
)
async def read_metrics() -> PlainTextResponse:
    """Pools, webhooks, payments and drift; answers also while the database does not."""
    try:
        async with asyncio.timeout(READINESS_TIMEOUT_SECONDS):
            await run_in_async_database_transaction(_measure)
        metrics.DATABASE_UP.set(1)
    except Exception as error:  # noqa: BLE001  whatever it is, the other figures are still true
        logger.warning("No figures from the database", error=type(error).__name__)
        metrics.DATABASE_UP.set(0)
    return PlainTextResponse(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


def _measure(session: Session) -> None:
    """Set the figures that the database knows."""
    metrics.UNMATCHED_PAYMENTS.set(count_open_unmatched_payments(session))
    metrics.DEAD_EVENTS.set(count_dead_events(session))
    metrics.STRIPE_DRIFT.set(newest_drift(session) or 0)
    found = drift(session)
    metrics.DRIFT_USERS.set(found.users)
    metrics.DRIFT_AGE.set(math.inf if found.age_seconds is None else found.age_seconds)
    metrics.UNBOOKABLE_USERS.set(count_unbookable_users(session))
    for work, failures in worker_failures.count_failures(session).items():
        metrics.WORKER_FAILURES.labels(work=work).set(failures)
