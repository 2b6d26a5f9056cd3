"""What Prometheus may ask: pools, webhooks, unmatched payments."""

from collections.abc import Iterator

from prometheus_client import REGISTRY, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import QueuePool

from src.common.async_database import get_async_engine
from src.common.database import get_engine

WEBHOOK_EVENTS = Counter(
    "flashslides_webhook_events", "Stripe events by what became of them", ["answer"]
)
UNMATCHED_PAYMENTS = Gauge(
    "flashslides_unmatched_payments_open", "Payments nobody was credited for yet"
)
DATABASE_UP = Gauge("flashslides_database_up", "Whether the last scrape reached the database")


class PoolCollector(Collector):
    """The connection pools as they are at the moment of the scrape."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One gauge, by pool and state."""
        family = GaugeMetricFamily(
            "flashslides_database_pool_connections",
            "Connections by pool and state; `limit` is how many there may be",
            labels=["pool", "state"],
        )
        for name, engine in (("sync", get_engine()), ("async", get_async_engine().sync_engine)):
            pool = engine.pool
            if not isinstance(pool, QueuePool):
                continue
            family.add_metric([name, "in_use"], pool.checkedout())
            family.add_metric([name, "idle"], pool.checkedin())
            family.add_metric([name, "limit"], pool.size() + pool._max_overflow)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  no public name
        yield family

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing at registration: the engines are made at first use."""
        return iter(())


REGISTRY.register(PoolCollector())
