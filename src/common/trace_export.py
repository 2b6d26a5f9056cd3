"""OpenTelemetry's SDK as we set it up, and what of a span may leave the process.

Imported where tracing is on alone. Spans of FastAPI and of SQLAlchemy's instrumentation hold paths,
query strings and the database's own words, which quote values: they are left out here, in one
place, whoever made the span.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.sqlalchemy.engine import (  # pyright: ignore[reportMissingTypeStubs]
    EngineTracer,
)
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.trace import Status

from src.common.exceptions import SettingsError
from src.common.printable import masked_path

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue
    from sqlalchemy import Engine

NAME = "flashslides"
LEFT_OUT = frozenset(
    {
        "url.query",  # may hold anything
        "url.full",
        "http.request.method_original",
        "client.address",
        "user_agent.original",
        "exception.message",  # the database's quotes the values it refuses
        "exception.stacktrace",
    }
)
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class _State:
    provider: TracerProvider | None = None


class HarmlessSpans(SpanExporter):
    """Hands spans on to an exporter without what may be somebody's data."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Hand them on."""
        return self._exporter.export([_harmless(each) for each in spans])

    def shutdown(self) -> None:
        """Close what they are handed to."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Have it send what it has."""
        return self._exporter.force_flush(timeout_millis)


def _harmless(made: ReadableSpan) -> ReadableSpan:
    """The same without events, an error's sentence and the attributes `LEFT_OUT`.

    A path is told as its route's template, or with all but plain words masked.
    """
    attributes: dict[str, AttributeValue] = {
        name: value for name, value in (made.attributes or {}).items() if name not in LEFT_OUT
    }
    if "url.path" in attributes:
        route = attributes.get("http.route")
        attributes["url.path"] = route or masked_path(str(attributes["url.path"]))
    return ReadableSpan(
        name=made.name,
        context=made.context,
        parent=made.parent,
        resource=made.resource,
        attributes=attributes,
        links=made.links,
        kind=made.kind,
        status=Status(made.status.status_code),
        start_time=made.start_time,
        end_time=made.end_time,
        instrumentation_scope=made.instrumentation_scope,
    )


def open_tracer() -> trace.Tracer:
    """The process's tracer, whose spans go where the `OTEL_…` variables say.

    Raises:
        SettingsError: they ask for an exporter or protocol that we have not.
    """
    exporter = HarmlessSpans(open_exporter())
    named = {} if _names_the_service() else {SERVICE_NAME: NAME}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)  # FastAPI's own spans go there too
    _State.provider = provider
    return provider.get_tracer(NAME)


def close_tracer() -> None:
    """Send what is left."""
    provider, _State.provider = _State.provider, None
    if provider is not None:
        provider.shutdown()


def trace_statements(engine: "Engine") -> None:
    """Make a span of each statement of this engine.

    Not by the instrumentor: it refuses SQLAlchemy 2.1, and patches the library for everybody.
    """
    usage = NoOpMeterProvider().get_meter(NAME).create_up_down_counter("connections")
    EngineTracer(trace.get_tracer(NAME), engine, usage)  # type: ignore[no-untyped-call]  # of an untyped library


def open_exporter() -> SpanExporter:
    """Where the variables say that spans go.

    Raises:
        SettingsError: they ask for an exporter or protocol that we have not.
    """
    name = os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if name == "console":
        return ConsoleSpanExporter()
    if name != "otlp":
        raise SettingsError(f"OTEL_TRACES_EXPORTER is {name}: only otlp, console and none are here")
    for variable in _PROTOCOLS:
        protocol = os.environ.get(variable, "").strip()
        if protocol and protocol != "http/protobuf":
            raise SettingsError(f"{variable} is {protocol}: only http/protobuf is here")
    return OTLPSpanExporter()


def _names_the_service() -> bool:
    attributes = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return bool(os.environ.get("OTEL_SERVICE_NAME")) or f"{SERVICE_NAME}=" in attributes
