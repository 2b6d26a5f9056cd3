"""`/livez`, `/readyz`, `/metrics`: is the process alive, can it serve, what does it measure?"""

import asyncio

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import false, select
from sqlalchemy.orm import Session

from src.api.src import metrics
from src.api.src.errors import ALWAYS, DATABASE, error_responses
from src.api.src.schemas.health import LivenessOut, ReadinessOut
from src.api.src.scrapes import DatabaseFigures, require_metrics_token
from src.common.async_database import run_in_async_database_transaction
from src.common.exceptions import DatabaseBusy, Unavailable
from src.common.models.user import User
from src.common.postgres.migrations import current_revision, is_behind

router = APIRouter(tags=["operations"])

READINESS_TIMEOUT_SECONDS = 2


@router.get("/livez", summary="Is the process alive?", responses=error_responses(*ALWAYS))
async def livez() -> LivenessOut:
    """Answer 200 as long as the process runs. Nothing else is asked, the database neither."""
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
    responses=error_responses(*ALWAYS, "AUTHENTICATION_FAILURE"),
    dependencies=[Depends(require_metrics_token)],
)
async def read_metrics(request: Request) -> PlainTextResponse:
    """Answer the figures of pools, webhooks, payments and drift, also while the database is down.

    Figures from the database are at most `METRICS_CACHE_SECONDS` old.
    """
    figures: DatabaseFigures = request.app.state.database_figures
    await figures.refresh()
    return PlainTextResponse(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
