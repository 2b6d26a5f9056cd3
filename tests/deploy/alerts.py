"""A healthy system's series, and for each alert what is otherwise where it has to fire."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

JOB = 'job="flashslides",instance="one:8000"'


def _series(name: str, **labels: str) -> str:
    more = "".join(f',{label}="{value}"' for label, value in labels.items())
    return f"{name}{{{JOB}{more}}}"


def _requests(status: str, route: str = "/api/v1/user/{user_id}", method: str = "GET") -> str:
    name = "flashslides_http_request_seconds_count"
    return _series(name, method=method, route=route, status=status)


def _webhooks(status: str) -> str:
    return _requests(status, "/api/v1/webhook", "POST")


def _calls(outcome: str) -> str:
    return _series("flashslides_stripe_call_seconds_count", outcome=outcome)


def _operations(le: str) -> str:
    return _series("flashslides_credits_engine_operation_seconds_bucket", le=le)


def _pool(state: str) -> str:
    return _series("flashslides_database_pool_connections", pool="async", state=state)


def _connections(state: str) -> str:
    return _series("flashslides_database_connections", state=state)


DRIFT_AGE = _series("flashslides_credits_drift_age_seconds")
RECONCILIATION_AGE = _series("flashslides_stripe_reconciliation_age_seconds")
BATCHES = _series("flashslides_credits_engine_batch_operations_count")
FAILED_BATCHES = _series("flashslides_credits_engine_failed_batches_total")
DEADLOCKS = _series("flashslides_database_deadlocks", database="flashslides")
FAILURES = _series("flashslides_worker_failures", work="bookings")
ANCHOR_AGE = _series("flashslides_anchor_age_seconds")
ANCHORS_MISSING = _series("flashslides_anchors_missing", sink="file:anchors.jsonl")
NOTICES_DEAD = _series("flashslides_notices_dead", endpoint="7")
NOTICES_OLDEST = _series("flashslides_notices_oldest_seconds", endpoint="7")
UP = f"up{{{JOB}}}"

HEALTHY = {
    _series("flashslides_credits_drift_users"): "0x120",
    DRIFT_AGE: "0+60x120",
    _series("flashslides_anchor_contradictions"): "0x120",
    ANCHOR_AGE: "0+60x59 0+60x60",
    ANCHORS_MISSING: "0x30 1x60 0x29",
    _series("flashslides_unmatched_payments_open"): "0x120",
    _series("flashslides_stripe_drift"): "0x120",
    RECONCILIATION_AGE: "0+60x59 0+60x60",
    _series("flashslides_stripe_events_dead"): "0x120",
    _series("flashslides_stripe_events_waiting"): "3x120",
    _series("flashslides_stripe_events_overdue_seconds"): "0x60 30x59",
    _webhooks("200"): "0+60x120",
    _webhooks("400"): "0+1x120",
    _calls("answered"): "0+60x120",
    _calls("refused"): "0+60x120",
    _calls("failed"): "0+3x120",
    _operations("0.1"): "0+6000x120",
    _operations("1"): "0+6000x120",
    _operations("2"): "0+6000x120",
    _operations("+Inf"): "0+6000x120",
    BATCHES: "0+1000x120",
    FAILED_BATCHES: "0+1x120",
    UP: "1x120",
    _requests("200"): "0+1000x120",
    _requests("402"): "0+1000x120",
    _requests("500"): "0+1x120",
    _requests("503"): "0+10x120",
    _series("flashslides_database_up"): "1x120",
    _pool("in_use"): "20x120",
    _pool("limit"): "30x120",
    _connections("active"): "20x120",
    _connections("idle"): "40x120",
    _series("flashslides_database_connections_limit"): "97x120",
    _series("flashslides_database_oldest_transaction_seconds"): "60x120",
    DEADLOCKS: "50x60 53x59",
    _series("flashslides_replica_lag_seconds", replica="standby:5432"): "0x50 70x3 2x67",
    _series("flashslides_workers_alive"): "2x60 0x2 2x57",
    _series("flashslides_credits_bookings_overdue_seconds"): "5x120",
    _series("flashslides_credits_unbookable_users"): "0x120",
    FAILURES: "7x120",
    NOTICES_DEAD: "0x120",
    NOTICES_OLDEST: "0x60 0+60x30 3x28",
}
"""Two hours, a value a minute."""


class Firing(NamedTuple):
    """What differs from a healthy system, and how the alert that fires words it."""

    differs: dict[str, str]
    summary: str
    labels: Mapping[str, str] = MappingProxyType({})
    """Beside its severity."""


INSTANCE = {"instance": "one:8000"}
FIRING = {
    "FlashSlidesBooksDiffer": Firing(
        {_series("flashslides_credits_drift_users"): "0x50 2x70"},
        "The books of 2 users differ from their journal",
    ),
    "FlashSlidesHistoryChanged": Firing(
        {_series("flashslides_anchor_contradictions"): "1x120"},
        "1 contradictions between the database and its anchors",
    ),
    "FlashSlidesAnchorsStale": Firing(
        {ANCHOR_AGE: "10860x120"}, "The newest checkpoint over all users is 3h 1m 0s old"
    ),
    "FlashSlidesAnchorsMissing": Firing(
        {ANCHORS_MISSING: "2x120"},
        "file:anchors.jsonl lacks 2 checkpoints",
        {"sink": "file:anchors.jsonl"},
    ),
    "FlashSlidesVerificationStale": Firing(
        {DRIFT_AGE: "172860x120"}, "Nobody has finished verifying everybody's books for 2d 0h 1m 0s"
    ),
    "FlashSlidesPaymentsUnmatched": Firing(
        {_series("flashslides_unmatched_payments_open"): "3x120"},
        "3 payments have credited nobody",
    ),
    "FlashSlidesStripeDiffers": Firing(
        {_series("flashslides_stripe_drift"): "1x120"},
        "The last comparison with Stripe left 1 differences",
    ),
    "FlashSlidesReconciliationStale": Firing(
        {RECONCILIATION_AGE: "10860x120"}, "The last comparison with Stripe ended 3h 1m 0s ago"
    ),
    "FlashSlidesEventsDead": Firing(
        {_series("flashslides_stripe_events_dead"): "4x120"},
        "4 of Stripe's events are tried no more",
    ),
    "FlashSlidesEventsOverdue": Firing(
        {_series("flashslides_stripe_events_overdue_seconds"): "660x120"},
        "One of Stripe's events is 11m 0s late",
    ),
    "FlashSlidesWebhooksRefused": Firing(
        {_webhooks("200"): "0x120", _webhooks("400"): "0+60x120"},
        "1 webhooks a second are refused, which is more than half of them",
    ),
    "FlashSlidesStripeCallsFail": Firing(
        {_calls("failed"): "0+60x120"},
        "1 calls to Stripe a second fail, which is more than a tenth of them",
    ),
    "FlashSlidesEngineSlow": Firing(
        {_operations("0.1"): "0x120", _operations("1"): "0x120"},
        "1 in 100 batches of credit operations takes 1.99s or longer",
    ),
    "FlashSlidesEngineBatchesFail": Firing(
        {FAILED_BATCHES: "0+60x120"},
        "1 batches a second fail and are run again in halves, more than 1 in 100",
    ),
    "FlashSlidesDown": Firing({UP: "0x120"}, "No instance of FlashSlides answers Prometheus"),
    "FlashSlidesInstanceDown": Firing(
        {UP: "0x120", 'up{job="flashslides",instance="two:8000"}': "1x120"},
        "one:8000 does not answer Prometheus",
        {"job": "flashslides", **INSTANCE},
    ),
    "FlashSlidesRequestsFail": Firing(
        {_requests("500"): "0+60x120"},
        "1 requests a second are answered 500 or 502, more than 1 in 100",
    ),
    "FlashSlidesRequestsBusy": Firing(
        {_requests("503"): "0+120x120"},
        "2 requests a second are answered 503, more than 1 in 20",
    ),
    "FlashSlidesDatabaseUnreachable": Firing(
        {_series("flashslides_database_up"): "0x120"},
        "one:8000 does not reach the database",
        INSTANCE,
    ),
    "FlashSlidesPoolExhausted": Firing(
        {_pool("in_use"): "30x120"},
        "30 connections of the async pool of one:8000 are in use, over nine tenths",
        {**INSTANCE, "pool": "async"},
    ),
    "FlashSlidesConnectionsNearLimit": Firing(
        {_connections("idle"): "70x120"},
        "90 connections are open, more than 85 % of what the server allows",
    ),
    "FlashSlidesTransactionOpenLong": Firing(
        {_series("flashslides_database_oldest_transaction_seconds"): "0+60x120"},
        "A database transaction has been open for 2h 0m 0s",
    ),
    "FlashSlidesDeadlocks": Firing({DEADLOCKS: "50+1x120"}, "30 deadlocks in half an hour"),
    "FlashSlidesReplicaBehind": Firing(
        {_series("flashslides_replica_lag_seconds", replica="standby:5432"): "90x120"},
        "The read replica standby:5432 is 1m 30s behind; +Inf where it is away",
        {"replica": "standby:5432"},
    ),
    "FlashSlidesNoWorker": Firing(
        {_series("flashslides_workers_alive"): "2x110 0x9"}, "No worker has left a sign of life"
    ),
    "FlashSlidesBookingsOverdue": Firing(
        {_series("flashslides_credits_bookings_overdue_seconds"): "3600x120"},
        "A lot or hold that expired 1h 0m 0s ago is not booked",
    ),
    "FlashSlidesUsersUnbookable": Firing(
        {_series("flashslides_credits_unbookable_users"): "1x120"},
        "What is due of 1 users cannot be booked",
    ),
    "FlashSlidesWorkFails": Firing(
        {FAILURES: "7x100 8x19"},
        "The worker's bookings has failed as nobody expected",
        {"work": "bookings"},
    ),
    "FlashSlidesNoticesDead": Firing(
        {NOTICES_DEAD: "5x120"}, "5 notices for endpoint 7 are tried no more", {"endpoint": "7"}
    ),
    "FlashSlidesNoticesOverdue": Firing(
        {NOTICES_OLDEST: "0+60x120"},
        "Endpoint 7 was not told of what happened 2h 0m 0s ago",
        {"endpoint": "7"},
    ),
}
BESIDE = {"FlashSlidesDown": {"FlashSlidesInstanceDown"}}
"""What has to fire with it."""

QUIET = {
    "a webhook a few minutes that is none of Stripe's": {
        _webhooks("200"): "0x120",
        _webhooks("400"): "0x5 1x5 2x5 3x5 4x5 5x5 6x5 7x5 8x5 9x5 10x5 11x5 12x5 13x5 14x60",
    },
    "no worker is to verify the books, to compare with Stripe or to anchor": {
        DRIFT_AGE: "0x120",
        RECONCILIATION_AGE: "0x120",
        ANCHOR_AGE: "0x120",
    },
    "callers who leave before the answer": {_requests("499"): "0+600x120"},
}
"""What may be otherwise and should wake nobody."""
