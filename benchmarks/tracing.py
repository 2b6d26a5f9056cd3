"""What tracing costs: off, by the call that asks whether it is on; on, by the request.

    uv run python -m benchmarks.tracing

Requests are `/livez` in this process, without a network; spans are made, made harmless and dropped.
"""

import asyncio
import os
import time
import timeit
from collections.abc import Sequence

import httpx
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

REQUESTS = 200
ROUNDS = 25


class Dropping(SpanExporter):
    """Sends spans nowhere."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002  the SDK's
        """Drop them."""
        return SpanExportResult.SUCCESS


async def _request_us(client: httpx.AsyncClient) -> float:
    """Microseconds a request, in the best of some rounds: others use this machine too."""
    rounds: list[float] = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for _ in range(REQUESTS):
            await client.get("/livez")
        rounds.append((time.perf_counter() - begun) / REQUESTS * 1e6)
    return min(rounds)


async def main() -> None:
    """Measure and print."""
    os.environ |= {"ENV": "local", "LOG_LEVEL": "ERROR"}
    from src.api.src.main import create_app
    from src.common import tracing
    from src.common.observability import configure_logging
    from src.common.settings import get_settings

    configure_logging(get_settings())
    calls = 100_000
    asked = min(timeit.repeat(tracing.is_on, number=calls, repeat=ROUNDS)) / calls
    names = {"span": tracing.span}
    entered = min(timeit.repeat("with span('x'): pass", globals=names, number=calls, repeat=ROUNDS))
    print(
        f"off: to ask whether it is on {asked * 1e9:.0f} ns, a span {entered / calls * 1e9:.0f} ns"
    )
    transport = httpx.ASGITransport(create_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        off = await _request_us(client)
        from src.common import trace_export

        trace_export.open_exporter = Dropping
        os.environ["OTEL_TRACES_EXPORTER"] = "otlp"
        tracing.start()
        on = await _request_us(client)
        tracing.stop()
    print(f"a request: {off:.0f} us off, {on:.0f} us on")


if __name__ == "__main__":
    asyncio.run(main())
