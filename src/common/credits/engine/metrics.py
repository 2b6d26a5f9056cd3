"""The engine's Prometheus metrics, updated once a batch."""

from prometheus_client import Counter, Gauge, Histogram

QUEUED = Gauge(
    "flashslides_credits_engine_queued",
    "Credit operations that wait or are under way, as the last batch began",
    multiprocess_mode="livesum",
)
PARKED = Gauge(
    "flashslides_credits_engine_parked_users",
    "Users tried apart because somebody else keeps their rows locked",
    multiprocess_mode="livesum",
)
BATCH_SIZE = Histogram(
    "flashslides_credits_engine_batch_operations",
    "Credit operations in one database transaction",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_000),
)
SECONDS = Histogram(
    "flashslides_credits_engine_operation_seconds",
    "From asking to answering, of each batch's oldest operation",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
FAILED_BATCHES = Counter(
    "flashslides_credits_engine_failed_batches", "Batches that failed and were run again in halves"
)
