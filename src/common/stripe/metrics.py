"""Measures calls to Stripe: a metric of all, and a span of each where tracing is on."""

import time
from collections.abc import Generator
from contextlib import contextmanager

from prometheus_client import Histogram

from src.common import tracing
from src.common.stripe.gateway_errors import StripeGatewayError

CALL_SECONDS = Histogram(
    "flashslides_stripe_call_seconds",
    "Calls to Stripe, repetitions included, by how they ended",
    ["outcome"],
    buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20),
)


@contextmanager
def measured_call(name: str) -> Generator[None]:
    """Measure the call that the block makes, `RefundService.create_async`."""
    started = time.perf_counter()
    outcome = "failed"
    try:
        with tracing.span(f"Stripe {name}", calls_out=True):
            yield
        outcome = "answered"
    except StripeGatewayError as error:
        outcome = "refused" if error.is_refusal else "failed"
        raise
    finally:
        CALL_SECONDS.labels(outcome=outcome).observe(time.perf_counter() - started)
