"""What the dashboard shows, row by row: a row for each chapter of the metrics.

Each panel says what it shows, in which unit, and what is wrong.
"""

from scripts.dashboard_panel import (
    BAD_ABOVE_0,
    HERE,
    RATE,
    WEBHOOK,
    Panel,
    mean,
    newest,
    quantile,
    quantiles,
    rate,
    stat,
)
from scripts.dashboard_service_panels import REQUESTS, SERVICE_ROWS

ENGINE = "flashslides_credits_engine"
NOTICES = "flashslides_notices"


def _by_endpoint(expression: str) -> str:
    """Every instance tells the same."""
    return f"max by (endpoint) ({expression})"


ROWS: dict[str, list[Panel]] = {
    "At a glance": [
        stat(
            "Alerts",
            "How many of our alerts fire; each has a page in docs/how-to/alerts.",
            "short",
            'count(ALERTS{alertname=~"FlashSlides.+", alertstate="firing"}) or vector(0)',
        ),
        stat(
            "Instances",
            "How many instances answer Prometheus.",
            "short",
            'sum(up{job="flashslides"}) or vector(0)',
            (None, "red"),
            (1, "green"),
        ),
        stat(
            "Requests",
            "Requests a second, of all instances.",
            "reqps",
            f"sum(rate({REQUESTS}_count{{{HERE}}}[{RATE}]))",
            (None, "blue"),
        ),
        stat(
            "Failed",
            "The share of requests answered with 5xx.",
            "percentunit",
            f'sum(rate({REQUESTS}_count{{{HERE}, status=~"5.."}}[{RATE}]))'
            f" / sum(rate({REQUESTS}_count{{{HERE}}}[{RATE}])) or vector(0)",
            (None, "green"),
            (0.01, "orange"),
            (0.05, "red"),
        ),
        stat(
            "Credit operations",
            "Operations of the batch engine a second.",
            "ops",
            f"sum(rate({ENGINE}_batch_operations_sum{{{HERE}}}[{RATE}]))",
            (None, "blue"),
        ),
        stat(
            "Database",
            "1 while every instance reached it at its last scrape.",
            "bool_yes_no",
            f"min(flashslides_database_up{{{HERE}}})",
            (None, "red"),
            (1, "green"),
        ),
    ],
    "Money": [
        stat(
            "Users whose books differ",
            "Found by the workers, which replay everybody's journal. Anything but 0 is serious.",
            "short",
            newest("flashslides_credits_drift_users"),
        ),
        stat(
            "Everybody verified",
            "Time since the workers last finished verifying all users.",
            "s",
            f"min(flashslides_credits_drift_age_seconds{{{HERE}}})",
            (None, "green"),
            (86_400, "orange"),
            (172_800, "red"),
        ),
        Panel(
            "Waiting for people",
            "Payments that credited nobody, and requests that wait for another person's consent.",
            "short",
            [
                (newest("flashslides_unmatched_payments_open"), "payments"),
                (newest("flashslides_approvals_open"), "requests"),
            ],
            4,
            "stat",
            BAD_ABOVE_0,
        ),
        stat(
            "Differences from Stripe",
            "What the last comparison left unmended.",
            "short",
            newest("flashslides_stripe_drift"),
        ),
        stat(
            "Compared with Stripe",
            "Time since the last comparison ended; 0 where none is due.",
            "s",
            f"min(flashslides_stripe_reconciliation_age_seconds{{{HERE}}})",
            (None, "green"),
            (7_200, "orange"),
            (10_800, "red"),
        ),
        stat(
            "Users that cannot be booked",
            "Whose expired credits the worker cannot book.",
            "short",
            newest("flashslides_credits_unbookable_users"),
        ),
    ],
    "Inbox": [
        Panel(
            "Webhooks by answer",
            "Stripe's events by what became of them. `accepted` is stored for the worker.",
            "cps",
            [(rate("flashslides_webhook_events_total", "answer"), "{{answer}}")],
            is_stacked=True,
        ),
        Panel(
            "Webhooks by status",
            "400: a signature that is not Stripe's, or a secret that is not ours. 503: no secret.",
            "reqps",
            [(rate(f"{REQUESTS}_count", "status", f", {WEBHOOK}"), "{{status}}")],
            is_stacked=True,
        ),
        Panel(
            "Events that wait",
            "Stored and not settled; those that are dead are tried no more.",
            "short",
            [
                (newest("flashslides_stripe_events_waiting"), "waiting"),
                (newest("flashslides_stripe_events_dead"), "dead"),
            ],
        ),
        Panel(
            "How late the worker is",
            "Since when the next attempt at an event should have begun. Red: an alert.",
            "s",
            [(newest("flashslides_stripe_events_overdue_seconds"), "overdue")],
            steps=((None, "green"), (600, "red")),
        ),
        Panel(
            "Calls to Stripe by outcome",
            "Refused: Stripe said no. Failed: it did not answer in time, or not as it should.",
            "reqps",
            [(rate("flashslides_stripe_call_seconds_count", "outcome"), "{{outcome}}")],
            is_stacked=True,
        ),
        Panel(
            "How long calls to Stripe take",
            "Repetitions included, whatever the outcome.",
            "s",
            quantiles("flashslides_stripe_call_seconds"),
        ),
    ],
    "Engine": [
        Panel(
            "Operations a second",
            "Spends, holds, grants … that the engine wrote, or refused.",
            "ops",
            [(rate(f"{ENGINE}_batch_operations_sum", "instance"), "{{instance}}")],
            is_stacked=True,
        ),
        Panel(
            "How long operations take",
            "From asking to answering, of each batch's oldest operation.",
            "s",
            quantiles(f"{ENGINE}_operation_seconds"),
        ),
        Panel(
            "Operations in a batch",
            "Grows with the load: that is what batches are for.",
            "short",
            [
                (
                    mean(f"{ENGINE}_batch_operations"),
                    "mean",
                ),
                (quantile(0.99, f"{ENGINE}_batch_operations"), "p99"),
            ],
        ),
        Panel(
            "Waiting",
            "Operations in the queue. Beyond CREDITS_ENGINE_QUEUE_MAX they are refused.",
            "short",
            [(f"sum by (instance) ({ENGINE}_queued{{{HERE}}})", "{{instance}}")],
        ),
        Panel(
            "Users locked by others",
            "Tried apart, while somebody else keeps their rows locked.",
            "short",
            [(f"sum by (instance) ({ENGINE}_parked_users{{{HERE}}})", "{{instance}}")],
        ),
        Panel(
            "Batches run again",
            "A batch that fails is run again in halves, down to the operation at fault.",
            "cps",
            [(rate(f"{ENGINE}_failed_batches_total", "instance"), "{{instance}}")],
        ),
    ],
    "Notices": [
        Panel(
            "Delivered",
            "Notices a second that each endpoint takes.",
            "ops",
            [
                (
                    f"max by (endpoint) (deriv(flashslides_notices_delivered{{{HERE}}}[5m]))",
                    "{{endpoint}}",
                )
            ],
        ),
        Panel(
            "Failed",
            "Attempts that failed, in each half hour.",
            "short",
            [
                (
                    f"max by (endpoint) (delta(flashslides_notices_failed{{{HERE}}}[30m]))",
                    "{{endpoint}}",
                )
            ],
        ),
        Panel(
            "Given up",
            "Dead notices: `flashslides notices replay`, or the console, sends them again.",
            "short",
            [(_by_endpoint(f"{NOTICES}_dead{{{HERE}}}"), "{{endpoint}}")],
            steps=((None, "green"), (1, "red")),
        ),
        Panel(
            "Waiting",
            "Notices that wait for each endpoint.",
            "short",
            [(_by_endpoint(f"{NOTICES}_pending{{{HERE}}}"), "{{endpoint}}")],
            12,
        ),
        Panel(
            "How late",
            "Since when the oldest notice waits.",
            "s",
            [(_by_endpoint(f"{NOTICES}_oldest_seconds{{{HERE}}}"), "{{endpoint}}")],
            12,
            steps=((None, "green"), (3_600, "red")),
        ),
    ],
    **SERVICE_ROWS,
}
