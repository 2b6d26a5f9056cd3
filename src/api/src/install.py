"""`install(app)`: gives any FastAPI application users, credits and `charge`."""

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import Any

import structlog
from fastapi import FastAPI

from src.api.src.authentication import build_verifier
from src.api.src.balance_streams import BalanceStreams
from src.api.src.body_limit import BodyLimitMiddleware
from src.api.src.charging_documentation import document_charges
from src.api.src.charging_middleware import ChargingMiddleware
from src.api.src.cors import allow_cors
from src.api.src.dependencies import service_cache
from src.api.src.error_handlers import install_error_handlers
from src.api.src.fast_path import FastPathMiddleware
from src.api.src.head_requests import HeadMiddleware
from src.api.src.parents import end_with_parent
from src.api.src.request_context import RequestContextMiddleware
from src.api.src.scrapes import DatabaseFigures
from src.api.src.shared_by_group import shared
from src.common import tracing
from src.common.accounts.known_sign_ins import KnownSignIns
from src.common.approvals.asked_keys import AskedKeys
from src.common.async_database import dispose_async_db, get_async_engine, init_async_db
from src.common.async_replicas import dispose_async_replicas
from src.common.credits.engine.engine import Engine
from src.common.credits.engine.readings import PageReadings, Readings
from src.common.database import dispose_db, init_db
from src.common.database_settings import DatabasePooler
from src.common.exceptions import DatabaseBusy
from src.common.observability import configure_logging
from src.common.replicas import dispose_replicas
from src.common.settings import get_settings
from src.common.stripe.batches.arrivals import Arrivals
from src.common.stripe.checkout import check_pages
from src.common.stripe.gateway import open_gateway

logger = structlog.get_logger(__name__)


def install(app: FastAPI) -> None:
    """Give an application what its endpoints need to know users and charge them credits.

    Call it once, before the application serves. From the settings of this process it adds:

    - tokens and API keys (`dependencies.py`), and `charge`;
    - the database's pools and the ledger's engine, for as long as the application runs;
    - limits for request bodies, the one body for errors, request ids, logs, `HEAD`, CORS.

    The application keeps its routes and its own lifespan, which runs inside this one.

    Raises:
        SettingsError: Naming each variable that is missing or wrong.
    """
    own_lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def both(app: FastAPI) -> AsyncGenerator[Any]:
        async with lifespan(app), own_lifespan(app) as state:
            yield state

    app.router.lifespan_context = both
    # The middleware added last is the outermost.
    app.add_middleware(ChargingMiddleware)
    app.add_middleware(FastPathMiddleware)
    settings = get_settings()
    app.add_middleware(
        BodyLimitMiddleware,
        max_bytes=settings.api_max_body_bytes,
        timeout_seconds=settings.api_body_timeout_seconds,
    )
    install_error_handlers(app)
    app.add_middleware(HeadMiddleware)
    allow_cors(app, settings)
    app.add_middleware(RequestContextMiddleware)
    document_charges(app)


async def _look_at_database() -> None:
    """Refuse wrong settings; where the database is away, serve as not ready until it comes.

    Connections are opened when they are needed, so nothing else has to wait for it.

    Raises:
        SettingsError: The settings name no database.
        OperationalError: It refuses us: a wrong password or name.
    """
    try:
        init_db()
        await init_async_db()
    except DatabaseBusy as error:
        logger.warning("The database is away: not ready until it comes", reason=error.message)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """Check settings and database before the first request; close the pools after the last.

    The document does this in `@app.on_event("startup")`, which FastAPI has deprecated.
    """
    settings = get_settings()
    tracing.start()
    configure_logging(settings)
    end_with_parent()
    check_pages(settings)
    app.state.settings = settings
    app.state.verifier = build_verifier(settings)
    app.state.services = service_cache(settings)
    app.state.database_figures = DatabaseFigures(settings.metrics_cache_seconds)
    try:
        await _look_at_database()
        async with (
            app.state.verifier.keys.kept_fresh(),
            open_gateway(settings) as app.state.gateway,
            Engine.from_settings(settings) as app.state.ledger,
            BalanceStreams(app.state.verifier, settings) as app.state.balance_streams,
        ):
            app.state.arrivals = Arrivals(get_async_engine, settings)
            if settings.database_pooler is DatabasePooler.NONE:  # else time-outs need a transaction
                app.state.readings = shared(settings, Readings, lambda user_id: user_id)
                app.state.page_readings = shared(settings, PageReadings, attrgetter("user_id"))
                app.state.asked_keys = AskedKeys(get_async_engine)
                app.state.known_sign_ins = shared(settings, KnownSignIns, attrgetter("user_id"))
            # What start-up made stays: the collector need not look at it again and again.
            gc.collect()
            gc.freeze()
            yield
            await app.state.arrivals.aclose()
    finally:
        gc.unfreeze()
        dispose_db()
        dispose_replicas()
        await dispose_async_db()
        await dispose_async_replicas()
        await asyncio.to_thread(tracing.stop)
