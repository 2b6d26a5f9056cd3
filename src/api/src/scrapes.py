"""Who may read `/metrics`, and how often that asks the database."""

import asyncio
import hmac
import math
import uuid
from dataclasses import dataclass, field
from typing import Self

import structlog
from fastapi import Request
from fastapi.security.utils import get_authorization_scheme_param
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from src.api.src import metrics
from src.api.src.dependencies import SettingsOf
from src.common import worker_failures, worker_heartbeats
from src.common.anchors.queries import anchor_state
from src.common.approvals.queries import count_open
from src.common.async_database import read_from_async_database
from src.common.async_replicas import read_replay_of_replica
from src.common.credits.due import overdue_seconds
from src.common.credits.unbookable import count_unbookable_users
from src.common.credits.verification.drift import drift
from src.common.exceptions import Unauthenticated
from src.common.notices.delivery.figures import EndpointFigures, endpoint_figures
from src.common.postgres.lagging_reads import PassedBy
from src.common.postgres.routes import routed_to_schema
from src.common.postgres.server_figures import server_figures
from src.common.purchases.reconciliations import newest_age_seconds, newest_drift
from src.common.purchases.uncredited import count_unlisted
from src.common.purchases.unmatched import count_noted
from src.common.routing import async_all_groups, is_sharding
from src.common.settings import Settings, get_settings
from src.common.stripe.attempts import backlog, count_dead_events

logger = structlog.get_logger(__name__)

MEASURING_TIMEOUT_SECONDS = 2


class DatabaseFigures:
    """The figures that the database knows, read at most once in `cache_seconds` by a process.

    So that no number of scrapes burdens the database, a failing one neither.
    """

    def __init__(self, cache_seconds: float) -> None:
        self._cache_seconds = cache_seconds
        self._reading = asyncio.Lock()
        self._fresh_until = -math.inf

    async def refresh(self) -> None:
        """Read them if they are too old; whoever comes meanwhile waits for the same reading."""
        async with self._reading:
            clock = asyncio.get_running_loop().time
            if clock() >= self._fresh_until:
                await self._read()
                self._fresh_until = clock() + self._cache_seconds

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(MEASURING_TIMEOUT_SECONDS):
                await _measure_database()
            metrics.DATABASE_UP.set(1)
        except Exception as error:  # noqa: BLE001  whatever it is, the other figures are still true
            logger.warning("No figures from the database", error=type(error).__name__)
            metrics.DATABASE_UP.set(0)
        await _measure_replica(get_settings())


async def require_metrics_token(request: Request, settings: SettingsOf) -> None:
    """Let only those scrape who know METRICS_TOKEN, where it is set.

    Raises:
        Unauthenticated: AUTHENTICATION_FAILURE.
    """
    if settings.metrics_token is None:
        return
    scheme, token = get_authorization_scheme_param(request.headers.get("authorization"))
    expected = settings.metrics_token.get_secret_value()
    if scheme.lower() != "bearer" or not hmac.compare_digest(token.encode(), expected.encode()):
        raise Unauthenticated("Send METRICS_TOKEN as a bearer token", "AUTHENTICATION_FAILURE")


@dataclass
class _OfUsers:
    """Figures of users' own tables: of all, or of one group of users after the other."""

    overdue_seconds: float = 0.0
    unbookable: int = 0
    uncredited: int = 0
    endpoints: dict[uuid.UUID, EndpointFigures] = field(
        default_factory=dict[uuid.UUID, EndpointFigures]
    )

    def add(self, session: Session) -> Self:
        """Read those that this session sees."""
        self.uncredited += count_unlisted(session)
        self.overdue_seconds = max(self.overdue_seconds, overdue_seconds(session))
        self.unbookable += count_unbookable_users(session)
        return self.add_endpoints(session)

    def add_endpoints(self, session: Session) -> Self:
        """Read these alone: they are there before the first group is."""
        for each in endpoint_figures(session):
            known = self.endpoints.get(each.endpoint_id)
            self.endpoints[each.endpoint_id] = each if known is None else each.beside(known)
        return self


async def _measure_database() -> None:
    if not is_sharding():
        await read_from_async_database(lambda session: _measure(session, _OfUsers().add(session)))
        return
    of_users = _OfUsers()
    await read_from_async_database(of_users.add_endpoints)
    for group in await async_all_groups():
        with routed_to_schema(group):
            await read_from_async_database(of_users.add)
    await read_from_async_database(lambda session: _measure(session, of_users))


def _measure(session: Session, of_users: _OfUsers) -> None:
    """Set the figures that the database knows."""
    settings = get_settings()
    metrics.UNMATCHED_PAYMENTS.set(count_noted(session) + of_users.uncredited)
    _measure_stripe(session, settings)
    found = drift(session)
    metrics.DRIFT_USERS.set(found.users)
    is_verified = settings.credits_verify_interval_seconds
    metrics.DRIFT_AGE.set(_or_for_ever(found.age_seconds) if is_verified else 0)
    metrics.OPEN_APPROVALS.set(count_open(session))
    metrics.BOOKINGS_OVERDUE.set(of_users.overdue_seconds)
    metrics.UNBOOKABLE_USERS.set(of_users.unbookable)
    _measure_anchors(session)
    metrics.WORKERS_ALIVE.set(worker_heartbeats.read_workers(session).alive)
    # Also those that never failed: an alert sees a first failure only where there was a 0 before.
    counted = dict.fromkeys(worker_failures.KINDS, 0) | dict(
        worker_failures.count_failures(session)
    )
    for work, failures in counted.items():
        metrics.WORKER_FAILURES.labels(work=work).set(failures)
    _measure_notices(of_users)
    server = server_figures(session)
    for state, number in server.connections.items():
        metrics.DATABASE_CONNECTIONS.labels(state=state).set(number)
    metrics.DATABASE_CONNECTIONS_LIMIT.set(server.connections_limit)
    metrics.OLDEST_DATABASE_TRANSACTION.set(server.oldest_transaction_seconds)
    metrics.DEADLOCKS.labels(database=server.database).set(server.deadlocks)


def _measure_anchors(session: Session) -> None:
    state = anchor_state(session)
    metrics.ANCHOR_AGE.set(state.age_seconds or 0)
    metrics.ANCHOR_CONTRADICTIONS.set(state.contradictions)
    for sink in state.sinks:
        metrics.ANCHORS_MISSING.labels(sink=sink.sink).set(sink.missing)


async def _measure_replica(settings: Settings) -> None:
    """Set what the replica says of itself, where there is one."""
    name = settings.replica_address
    if name is None:
        return
    is_up, lag = False, None
    try:
        async with asyncio.timeout(MEASURING_TIMEOUT_SECONDS):
            replay = await read_replay_of_replica()
        is_up, lag = replay.is_standby, replay.lag_seconds
    except (PassedBy, TimeoutError, SQLAlchemyError) as error:
        logger.warning("No figures from the replica", error=type(error).__name__)
    metrics.REPLICA_UP.labels(replica=name).set(is_up)
    metrics.REPLICA_LAG.labels(replica=name).set(_or_for_ever(lag if is_up else None))


def _measure_notices(of_users: _OfUsers) -> None:
    of_endpoints = (
        metrics.NOTICES_DELIVERED,
        metrics.NOTICES_FAILED,
        metrics.NOTICES_PENDING,
        metrics.NOTICES_DEAD,
        metrics.NOTICES_OLDEST,
    )
    if not metrics.adds_up_processes():
        for metric in of_endpoints:
            metric.clear()  # of endpoints that were deleted
    for each in of_users.endpoints.values():
        age = 0 if each.disabled_reason else each.oldest_seconds
        figures = (each.delivered, each.failed, each.pending, each.dead, age)
        for metric, figure in zip(of_endpoints, figures, strict=True):
            metric.labels(endpoint=each.endpoint_id).set(figure)


def _measure_stripe(session: Session, settings: Settings) -> None:
    metrics.DEAD_EVENTS.set(count_dead_events(session))
    waiting = backlog(session)
    metrics.WAITING_EVENTS.set(waiting.events)
    metrics.EVENTS_OVERDUE.set(waiting.overdue_seconds)
    metrics.STRIPE_DRIFT.set(newest_drift(session, settings.connected_accounts))
    is_compared = settings.stripe_secret_key and settings.stripe_reconcile_interval_seconds
    age = newest_age_seconds(session, settings.connected_accounts) if is_compared else 0
    metrics.RECONCILIATION_AGE.set(_or_for_ever(age))


def _or_for_ever(age_seconds: float | None) -> float:
    return math.inf if age_seconds is None else age_seconds
