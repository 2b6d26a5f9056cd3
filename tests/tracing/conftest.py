"""Tracing switched on in this process, its spans kept in memory, and off again after the test."""

from collections.abc import Callable, Generator, Sequence

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

from src.common import trace_export, tracing


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Generator[Callable[[], Sequence[ReadableSpan]]]:
    """The spans that have left the process so far; begin with this, before the API starts."""
    kept = InMemorySpanExporter()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setattr(trace_export, "open_exporter", lambda: kept)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)  # the API lets it be set once
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())

    def sent() -> Sequence[ReadableSpan]:
        trace.get_tracer_provider().force_flush()  # type: ignore[attr-defined]  # the SDK's
        return kept.get_finished_spans()

    yield sent
    tracing.stop()
