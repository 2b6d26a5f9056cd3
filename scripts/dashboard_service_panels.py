"""What the dashboard shows of the service itself: HTTP, database, worker."""

from scripts.dashboard_panel import (
    HERE,
    Panel,
    newest,
    quantile,
    quantiles,
    rate,
    share_of_pools_in_use,
)

REQUESTS = "flashslides_http_request_seconds"

SERVICE_ROWS: dict[str, list[Panel]] = {
    "HTTP": [
        Panel(
            "Requests by status",
            "All routes.",
            "reqps",
            [(rate(f"{REQUESTS}_count", "status"), "{{status}}")],
            12,
            is_stacked=True,
        ),
        Panel(
            "How long requests take",
            "All routes, from the headers to the end of the answer.",
            "s",
            quantiles(REQUESTS),
            12,
        ),
        Panel(
            "The busiest routes",
            "Requests a second.",
            "reqps",
            [
                (
                    f"topk(8, {rate(f'{REQUESTS}_count', 'method, route')})",
                    "{{method}} {{route}}",
                )
            ],
        ),
        Panel(
            "The slowest routes",
            "The 95th percentile.",
            "s",
            [
                (
                    f"topk(8, {quantile(0.95, REQUESTS, by='le, method, route')})",
                    "{{method}} {{route}}",
                )
            ],
        ),
        Panel(
            "Errors by route",
            "Answers 5xx; 503 passes by itself and is tried again by callers.",
            "reqps",
            [
                (
                    rate(f"{REQUESTS}_count", "method, route, status", ', status=~"5.."'),
                    "{{status}} {{method}} {{route}}",
                )
            ],
        ),
        Panel(
            "Streams of balances",
            "How many are open.",
            "short",
            [(f"sum(flashslides_balance_streams_open{{{HERE}}})", "streams")],
            24,
        ),
    ],
    "Database": [
        Panel(
            "Pools",
            "Connections in use of what a pool may open. At 100 % requests wait, then get 503.",
            "percentunit",
            [
                (
                    f"max by (instance, pool) ({share_of_pools_in_use()})",
                    "{{instance}} {{pool}}",
                )
            ],
            steps=((None, "green"), (0.9, "red")),
            most=1,
        ),
        Panel(
            "The server's connections",
            "Everybody's, by state, and how many there may be.",
            "short",
            [
                (
                    f"max by (state) (flashslides_database_connections{{{HERE}}})",
                    "{{state}}",
                ),
                (newest("flashslides_database_connections_limit"), "limit"),
            ],
        ),
        Panel(
            "The oldest database transaction",
            "It keeps vacuum from clearing up, and perhaps locks from others.",
            "s",
            [(newest("flashslides_database_oldest_transaction_seconds"), "age")],
            steps=((None, "green"), (300, "red")),
        ),
        Panel(
            "Deadlocks",
            "In each ten minutes. Ours are tried again, so callers see none of them.",
            "short",
            [(f"max(delta(flashslides_database_deadlocks{{{HERE}}}[10m]))", "deadlocks")],
            12,
        ),
        Panel(
            "The database in reach",
            "Whether the last scrape reached it, by instance.",
            "bool_yes_no",
            [(f"max by (instance) (flashslides_database_up{{{HERE}}})", "{{instance}}")],
            12,
            "state-timeline",
            ((None, "red"), (1, "green")),
        ),
        Panel(
            "The replica answers",
            "Whether it answered the last scrape, as a standby; nothing where there is none.",
            "bool_yes_no",
            [(f"min by (replica) (flashslides_replica_up{{{HERE}}})", "{{replica}}")],
            kind="state-timeline",
            steps=((None, "red"), (1, "green")),
        ),
        Panel(
            "How far the replica is behind",
            "Beyond DATABASE_REPLICA_LAG_MAX_SECONDS the primary answers in its place.",
            "s",
            [(f"max by (replica) (flashslides_replica_lag_seconds{{{HERE}}})", "{{replica}}")],
        ),
        Panel(
            "Reads that a replica was asked for",
            "By who answered them, and why the primary did.",
            "reqps",
            [
                (
                    rate("flashslides_replica_reads_total", "answered_by, because"),
                    "{{answered_by}} {{because}}",
                )
            ],
        ),
    ],
    "Worker": [
        Panel(
            "Workers alive",
            "Those that left a sign of life within a minute and did not end.",
            "short",
            [(newest("flashslides_workers_alive"), "workers")],
            steps=((None, "red"), (1, "green")),
            width=6,
        ),
        Panel(
            "How late bookings are",
            "Since when the oldest lot or hold that has expired waits to be booked.",
            "s",
            [(newest("flashslides_credits_bookings_overdue_seconds"), "overdue")],
            steps=((None, "green"), (600, "red")),
            width=6,
        ),
        Panel(
            "Time since all were verified",
            "Falls to 0 whenever the workers have come round.",
            "s",
            [(f"min(flashslides_credits_drift_age_seconds{{{HERE}}})", "age")],
            steps=((None, "green"), (172_800, "red")),
            width=6,
        ),
        Panel(
            "Failures by kind of work",
            "Those that nobody expected, in each half hour.",
            "short",
            [(f"max by (work) (delta(flashslides_worker_failures{{{HERE}}}[30m]))", "{{work}}")],
            width=6,
        ),
        Panel(
            "Contradictions with anchors",
            "Sinks that were shortened or know more than the database; entries not as anchored.",
            "short",
            [(newest("flashslides_anchor_contradictions"), "contradictions")],
            steps=((None, "green"), (1, "red")),
            width=8,
        ),
        Panel(
            "Age of the newest checkpoint",
            "Falls to 0 whenever a worker closes one.",
            "s",
            [(f"min(flashslides_anchor_age_seconds{{{HERE}}})", "age")],
            width=8,
        ),
        Panel(
            "Checkpoints that sinks lack",
            "They catch up once they answer again.",
            "short",
            [(f"max by (sink) (flashslides_anchors_missing{{{HERE}}})", "{{sink}}")],
            width=8,
        ),
    ],
}
