"""The API's Prometheus metrics: pools, webhooks, unmatched payments, verification, worker.

Where `PROMETHEUS_MULTIPROC_DIR` names a folder, the server processes add their figures up there;
the pools are those of the process that answers, and say which it is.
"""

import os
from collections.abc import Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import QueuePool

from src.common.async_database import get_async_engine
from src.common.database import get_engine

WEBHOOK_EVENTS = Counter(
    "flashslides_webhook_events", "Stripe events by what became of them", ["answer"]
)
UNMATCHED_PAYMENTS = Gauge(
    "flashslides_unmatched_payments_open",
    "Payments nobody was credited for yet",
    multiprocess_mode="mostrecent",
)
DEAD_EVENTS = Gauge(
    "flashslides_stripe_events_dead",
    "Stripe events nobody tries any more: replay or ignore them",
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
    "Time since the workers last finished everybody's books; +Inf before the first time",
    multiprocess_mode="mostrecent",
)
UNBOOKABLE_USERS = Gauge(
    "flashslides_credits_unbookable_users",
    "Users the workers could not book what is due of: 0, or `flashslides verify` names them",
    multiprocess_mode="mostrecent",
)
WORKER_FAILURES = Gauge(
    "flashslides_worker_failures",
    "How often a kind of the workers' work has failed as nobody expected, ever",
    ["work"],
    multiprocess_mode="mostrecent",
)
DATABASE_UP = Gauge(
    "flashslides_database_up",
    "Whether the last scrape reached the database",
    multiprocess_mode="mostrecent",
)


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


def exposition() -> bytes:
    """Everything in Prometheus's text format, of all server processes where there are several."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library is untyped here
    registry.register(PoolCollector(os.getpid()))
    return generate_latest(registry)
