"""The API's Prometheus metrics: requests, webhooks, money, worker, database, pools.

Where `PROMETHEUS_MULTIPROC_DIR` names a folder, the server processes add their figures up there;
the pools are those of the process that answers, and say which it is.
"""

import os
from collections.abc import Iterator
from functools import cache

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import QueuePool

from src.common.async_database import get_async_engine
from src.common.database import get_engine

REQUEST_SECONDS = Histogram(
    "flashslides_http_request_seconds",
    "Requests over HTTP, from their headers to the end of their answers",
    ["method", "route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
WEBHOOK_EVENTS = Counter(
    "flashslides_webhook_events", "Stripe events by what became of them", ["answer"]
)
UNMATCHED_PAYMENTS = Gauge(
    "flashslides_unmatched_payments_open",
    "Payments nobody was credited for yet",
    multiprocess_mode="mostrecent",
)
OPEN_APPROVALS = Gauge(
    "flashslides_approvals_open",
    "Requests for credits or refunds that wait for another person's consent",
    multiprocess_mode="mostrecent",
)
DEAD_EVENTS = Gauge(
    "flashslides_stripe_events_dead",
    "Stripe events nobody tries any more: replay or ignore them",
    multiprocess_mode="mostrecent",
)
WAITING_EVENTS = Gauge(
    "flashslides_stripe_events_waiting",
    "Stripe events that are stored and not settled yet",
    multiprocess_mode="mostrecent",
)
EVENTS_OVERDUE = Gauge(
    "flashslides_stripe_events_overdue_seconds",
    "How late the worker is with the event that has waited longest; 0 where none is late",
    multiprocess_mode="mostrecent",
)
RECONCILIATION_AGE = Gauge(
    "flashslides_stripe_reconciliation_age_seconds",
    "Time since the last comparison with Stripe ended; +Inf before the first, 0 where none is due",
    multiprocess_mode="mostrecent",
)
STRIPE_DRIFT = Gauge(
    "flashslides_stripe_drift",
    "Differences from Stripe that the last reconciliation left",
    multiprocess_mode="mostrecent",
)
DRIFT_USERS = Gauge(
    "flashslides_credits_drift_users",
    "Users whose books the workers found to differ: 0, or run `flashslides verify`",
    multiprocess_mode="mostrecent",
)
DRIFT_AGE = Gauge(
    "flashslides_credits_drift_age_seconds",
    "Time since the workers last finished everybody's books; +Inf before the first, 0 where"
    " none is due",
    multiprocess_mode="mostrecent",
)
BOOKINGS_OVERDUE = Gauge(
    "flashslides_credits_bookings_overdue_seconds",
    "How long ago the lot or hold expired that has waited longest to be booked; 0 for none",
    multiprocess_mode="mostrecent",
)
UNBOOKABLE_USERS = Gauge(
    "flashslides_credits_unbookable_users",
    "Users the workers could not book what is due of: 0, or `flashslides verify` names them",
    multiprocess_mode="mostrecent",
)
ANCHOR_AGE = Gauge(
    "flashslides_anchor_age_seconds",
    "How old the newest checkpoint over all users is; 0 where nothing was ever anchored",
    multiprocess_mode="mostrecent",
)
ANCHOR_CONTRADICTIONS = Gauge(
    "flashslides_anchor_contradictions",
    "Sinks that were shortened or know more than the database, and 1 where entries are not what "
    "was anchored",
    multiprocess_mode="mostrecent",
)
ANCHORS_MISSING = Gauge(
    "flashslides_anchors_missing",
    "Checkpoints that a sink lacks",
    ["sink"],
    multiprocess_mode="mostrecent",
)
WORKER_FAILURES = Gauge(
    "flashslides_worker_failures",
    "How often a kind of the workers' work has failed as nobody expected, ever",
    ["work"],
    multiprocess_mode="mostrecent",
)
WORKERS_ALIVE = Gauge(
    "flashslides_workers_alive",
    "Workers that left a sign of life within a minute and did not end",
    multiprocess_mode="mostrecent",
)
NOTICES_DELIVERED = Gauge(
    "flashslides_notices_delivered",
    "Notices that the endpoint has taken, ever",
    ["endpoint"],
    multiprocess_mode="mostrecent",
)
NOTICES_FAILED = Gauge(
    "flashslides_notices_failed",
    "Attempts to tell the endpoint something that have failed, ever",
    ["endpoint"],
    multiprocess_mode="mostrecent",
)
NOTICES_PENDING = Gauge(
    "flashslides_notices_pending",
    "Notices that wait for the endpoint",
    ["endpoint"],
    multiprocess_mode="mostrecent",
)
NOTICES_DEAD = Gauge(
    "flashslides_notices_dead",
    "Notices for the endpoint that nobody tries any more: replay them",
    ["endpoint"],
    multiprocess_mode="mostrecent",
)
NOTICES_OLDEST = Gauge(
    "flashslides_notices_oldest_seconds",
    "How long ago the oldest notice happened that waits for the endpoint, while it is enabled",
    ["endpoint"],
    multiprocess_mode="mostrecent",
)
BALANCE_STREAMS = Gauge(
    "flashslides_balance_streams_open",
    "Streams of users' balances that are open now",
    multiprocess_mode="livesum",
)
DATABASE_UP = Gauge(
    "flashslides_database_up",
    "Whether the last scrape reached the database",
    multiprocess_mode="mostrecent",
)


DATABASE_CONNECTIONS = Gauge(
    "flashslides_database_connections",
    "Connections of everybody's to the whole server, by state",
    ["state"],
    multiprocess_mode="mostrecent",
)
DATABASE_CONNECTIONS_LIMIT = Gauge(
    "flashslides_database_connections_limit",
    "How many connections the server allows to others than its superusers",
    multiprocess_mode="mostrecent",
)
OLDEST_DATABASE_TRANSACTION = Gauge(
    "flashslides_database_oldest_transaction_seconds",
    "Age of the oldest open database transaction that our role may look at, but of pg_dump's",
    multiprocess_mode="mostrecent",
)
DEADLOCKS = Gauge(
    "flashslides_database_deadlocks",
    "Deadlocks in our database since its statistics began",
    ["database"],  # without a label it would be told as 0 before it is known
    multiprocess_mode="mostrecent",
)
REPLICA_UP = Gauge(
    "flashslides_replica_up",
    "Whether the read replica answered the last scrape, as a standby",
    ["replica"],  # so that nothing is told where there is none
    multiprocess_mode="mostrecent",
)
REPLICA_LAG = Gauge(
    "flashslides_replica_lag_seconds",
    "How far the read replica is behind its primary; +Inf where nobody knows",
    ["replica"],
    multiprocess_mode="mostrecent",
)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def observe_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count a request; `route` is a template, empty where no route matched."""
    _requests(method if method in _METHODS else "other", route, status).observe(seconds)


@cache
def _requests(method: str, route: str, status: int) -> Histogram:
    return REQUEST_SECONDS.labels(method=method, route=route, status=status)


class PoolCollector(Collector):
    """The connection pools as they are at the moment of the scrape."""

    def __init__(self, pid: int | None = None) -> None:
        self._process = {} if pid is None else {"pid": str(pid)}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One gauge, by pool and state."""
        family = GaugeMetricFamily(
            "flashslides_database_pool_connections",
            "Connections by pool and state; `limit` is how many there may be",
            labels=["pool", "state", *self._process],
        )
        for name, engine in (("sync", get_engine()), ("async", get_async_engine().sync_engine)):
            pool = engine.pool
            if not isinstance(pool, QueuePool):
                continue
            process = self._process.values()
            family.add_metric([name, "in_use", *process], pool.checkedout())
            family.add_metric([name, "idle", *process], pool.checkedin())
            family.add_metric([name, "limit", *process], pool.size() + pool._max_overflow)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  no public name
        yield family

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing at registration: the engines are made at first use."""
        return iter(())


REGISTRY.register(PoolCollector())


def adds_up_processes() -> bool:
    """Whether the figures are those of several server processes, kept in files."""
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ


def exposition() -> bytes:
    """Everything in Prometheus's text format, of all server processes where there are several."""
    if not adds_up_processes():
        return generate_latest()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library is untyped here
    registry.register(PoolCollector(os.getpid()))
    return generate_latest(registry)
