"""`/livez`, `/readyz`, `/metrics`: is the process alive, can it serve, what does it measure?"""

import asyncio

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from src.api.src import metrics
from src.api.src.errors import ALWAYS, DATABASE, error_responses
from src.api.src.schemas.health import LivenessOut, ReadinessOut
from src.api.src.scrapes import DatabaseFigures, require_metrics_token
from src.common.async_database import read_from_async_database
from src.common.doctor.readiness import find_revision_of_writable
from src.common.exceptions import DatabaseBusy, Unavailable
from src.common.postgres.migrations import describe_revision, is_behind

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
async def readyz() -> ReadinessOut:
    """Answer 200 when the database takes writes and has every migration that this code expects."""
    try:
        async with asyncio.timeout(READINESS_TIMEOUT_SECONDS):
            found = await read_from_async_database(find_revision_of_writable)
    except TimeoutError:
        raise DatabaseBusy("The database did not answer in time") from None
    if found is None or is_behind(found):
        raise Unavailable(str(describe_revision(found)), "NOT_READY")
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
