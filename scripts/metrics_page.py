"""Makes docs/reference/metrics.md: the metrics that the code registers, with what it cannot say.

`CATALOGUE` has each metric's unit and what its labels mean. A metric that is in one of the two
places and not in the other is an error.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import yaml
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from src.api.src import metrics
from src.cli.work import WORK
from src.common.postgres.lagging_reads import PrimaryBecause, Source
from src.common.postgres.server_figures import STATES
from src.common.stripe.inbox import EventAnswer

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
RULES = DEPLOY / "prometheus" / "flashslides.rules.yml"
PREFIX = "flashslides_"


class Explained(NamedTuple):
    """What of a metric the code does not say."""

    unit: str
    labels: Mapping[str, str] = MappingProxyType({})
    """What each label says."""


class Metric(NamedTuple):
    """A metric as the code registers it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which Prometheus stores it."""
        if self.kind == "histogram":
            return tuple(f"{self.name}_{part}" for part in ("bucket", "count", "sum"))
        return (f"{self.name}_total",) if self.kind == "counter" else (self.name,)


def _one_of(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


CATALOGUE: dict[str, dict[str, Explained]] = {
    "Money": {
        "flashslides_credits_drift_users": Explained("users"),
        "flashslides_credits_drift_age_seconds": Explained("seconds"),
        "flashslides_unmatched_payments_open": Explained("payments"),
        "flashslides_approvals_open": Explained("requests"),
        "flashslides_stripe_drift": Explained("differences"),
        "flashslides_stripe_reconciliation_age_seconds": Explained("seconds"),
    },
    "Inbox": {
        "flashslides_webhook_events": Explained(
            "events", {"answer": f"what Stripe was told: {_one_of(EventAnswer)}"}
        ),
        "flashslides_stripe_events_waiting": Explained("events"),
        "flashslides_stripe_events_overdue_seconds": Explained("seconds"),
        "flashslides_stripe_events_dead": Explained("events"),
        "flashslides_stripe_call_seconds": Explained(
            "seconds",
            {
                "outcome": "`answered`; `refused`, Stripe said no to what was asked; `failed`, "
                "it did not answer in time or as it should"
            },
        ),
    },
    "Engine": {
        "flashslides_credits_engine_queued": Explained("operations"),
        "flashslides_credits_engine_parked_users": Explained("users"),
        "flashslides_credits_engine_batch_operations": Explained("operations"),
        "flashslides_credits_engine_operation_seconds": Explained("seconds"),
        "flashslides_credits_engine_failed_batches": Explained("batches"),
    },
    "Notices": {
        name: Explained(unit, {"endpoint": "its id"})
        for name, unit in {
            "flashslides_notices_delivered": "notices",
            "flashslides_notices_failed": "attempts",
            "flashslides_notices_pending": "notices",
            "flashslides_notices_dead": "notices",
            "flashslides_notices_oldest_seconds": "seconds",
        }.items()
    },
    "HTTP": {
        "flashslides_http_request_seconds": Explained(
            "seconds",
            {
                "method": "`GET`, `POST` …; `other` where HTTP knows none of that name",
                "route": "the route's template, `/api/v1/user/{user_id}`; empty where none matched",
                "status": "of the answer, `200` …; 500 where there was none",
            },
        ),
        "flashslides_balance_streams_open": Explained("streams"),
    },
    "Database": {
        "flashslides_database_up": Explained("1 or 0"),
        "flashslides_database_pool_connections": Explained(
            "connections",
            {
                "pool": "`sync` or `async`",
                "state": "`in_use`, `idle`, `limit`",
                "pid": "the server process, where there are several",
            },
        ),
        "flashslides_database_connections": Explained(
            "connections", {"state": f"{_one_of(STATES)}, which the server does not tell our role"}
        ),
        "flashslides_database_connections_limit": Explained("connections"),
        "flashslides_database_oldest_transaction_seconds": Explained("seconds"),
        "flashslides_database_deadlocks": Explained("deadlocks", {"database": "its name"}),
        "flashslides_replica_up": Explained("1 or 0", {"replica": "its address"}),
        "flashslides_replica_lag_seconds": Explained("seconds", {"replica": "its address"}),
        "flashslides_replica_reads": Explained(
            "reads",
            {
                "answered_by": _one_of(Source),
                "because": f"why the primary answered: {_one_of(PrimaryBecause)}; empty where the "
                "replica did",
            },
        ),
    },
    "Worker": {
        "flashslides_anchor_age_seconds": Explained("seconds"),
        "flashslides_anchor_contradictions": Explained("contradictions"),
        "flashslides_anchors_missing": Explained(
            "checkpoints", {"sink": "the address of a sink of ANCHOR_SINKS"}
        ),
        "flashslides_workers_alive": Explained("workers"),
        "flashslides_credits_bookings_overdue_seconds": Explained("seconds"),
        "flashslides_credits_unbookable_users": Explained("users"),
        "flashslides_worker_failures": Explained(
            "failures", {"work": f"the kind of work: {_one_of(WORK)}"}
        ),
    },
}
"""The chapters of the page, which are the rows of the dashboard."""

OPENING = """# Metrics

`GET /metrics` answers in Prometheus's text format, for example:

```
flashslides_stripe_events_dead 0.0
flashslides_webhook_events_total{answer="processed"} 41.0
```

Where `METRICS_TOKEN` is set, the scrape sends it as a bearer token.
[Watch it with Prometheus and Grafana](../how-to/watch-with-prometheus.md) has a configuration,
alert rules and a dashboard.

- What begins with "the last scrape" or tells of the database is read from it at most once in
  `METRICS_CACHE_SECONDS`. Every instance tells the same, so take the maximum over instances.
- Counters end with `_total` in Prometheus, and begin at 0 whenever the process starts.
- A histogram `x` is stored as `x_bucket`, `x_count` and `x_sum`.
- The alerts that look at a metric are named with it.
- Besides these there are `process_…` and `python_…`, which the Python client makes itself.
"""


def registered() -> dict[str, Metric]:
    """The metrics of ours that the application registers, by name."""
    import src.api.src.main  # noqa: F401  # pyright: ignore[reportUnusedImport]  all of them register

    found: dict[str, Metric] = {}
    collectors = dict.fromkeys(REGISTRY._collector_to_names)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  no public name
    for collector in collectors:
        if isinstance(collector, MetricWrapperBase):
            (family,) = collector.describe()
            labels: tuple[str, ...] = collector._labelnames  # noqa: SLF001  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType, reportUnknownVariableType]
            found[family.name] = Metric(family.name, family.type, labels, family.documentation)
    for family in metrics.PoolCollector(pid=0).collect():
        labels = tuple(family.samples[0].labels)
        found[family.name] = Metric(family.name, family.type, labels, family.documentation)
    return {name: metric for name, metric in found.items() if name.startswith(PREFIX)}


def series_names() -> set[str]:
    """Every name of ours that an expression in PromQL may have."""
    return {series for metric in registered().values() for series in metric.series}


def names_in(expression: str) -> set[str]:
    """The names of ours that an expression has."""
    return set(re.findall(rf"\b{PREFIX}\w+", expression))


def alerts_of(metric: Metric) -> list[tuple[str, str]]:
    """The alerts that look at a metric: name and page."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    return [
        (rule["alert"], rule["annotations"]["runbook"])
        for rule in rules
        if "alert" in rule and names_in(rule["expr"]) & set(metric.series)
    ]


def metrics_page() -> str:
    """The page.

    Raises:
        LookupError: a metric has no place in the catalogue, or no longer exists.
        ValueError: one has other labels than those that are explained.
    """
    found = registered()
    explained = {name for chapter in CATALOGUE.values() for name in chapter}
    if found.keys() != explained:
        raise LookupError(f"registered or explained, not both: {sorted(found.keys() ^ explained)}")
    parts = [OPENING]
    for title, chapter in CATALOGUE.items():
        parts.append(f"\n## {title}\n")
        parts.append("\n| metric | type, unit | meaning, labels, alerts |\n|---|---|---|\n")
        parts += [_row(found[name], each) for name, each in chapter.items()]
    return "".join(parts)


def _row(metric: Metric, explained: Explained) -> str:
    if set(metric.labels) != set(explained.labels):
        raise ValueError(f"{metric.name} has labels {metric.labels}")
    said = [
        metric.help,
        *(f"`{name}`: {meaning}" for name, meaning in explained.labels.items()),
        *(f"[{name}](../{page}.md)" for name, page in alerts_of(metric)),
    ]  # below each other, and few columns: so no table is wider than a page on a laptop
    cells = f"`{metric.name}`", f"{metric.kind}, {explained.unit}", "<br>".join(said)
    return f"| {' | '.join(cells)} |\n"
