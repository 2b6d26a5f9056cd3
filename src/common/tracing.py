"""Traces by OpenTelemetry where they are switched on; where not, nothing of it is imported.

`OTEL_…` variables switch them on (`is_wanted`). What leaves the process is made harmless by
`trace_export.py`. Spans of our own are made with `span`, which costs a comparison while tracing is
off (decision 0047).
"""

import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from src.common.exceptions import ExceptionWithErrorType, SettingsError

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer
    from sqlalchemy import Engine

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_NOTHING: AbstractContextManager[None] = nullcontext()


class _State:
    tracer: "Tracer | None" = None
    """None while tracing is off."""


def is_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the variables name somewhere to send traces to."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter:
        return exporter != "none"
    return any(environment.get(name) for name in _ENDPOINTS)


def is_on() -> bool:
    """Whether this process makes spans."""
    return _State.tracer is not None


def start() -> None:
    """Begin to trace where that is wanted; before the engines are made, and before the logs are.

    Raises:
        SettingsError: the packages are not installed, or the variables ask for what we have not.
    """
    if is_on() or not is_wanted():
        return
    try:
        from src.common.trace_export import open_tracer
    except ImportError as error:
        raise SettingsError(
            f"OTEL_… variables ask for traces, and {error.name} is not installed: "
            "install flashslides[otel], or set OTEL_SDK_DISABLED=true"
        ) from None
    _State.tracer = open_tracer()


def stop() -> None:
    """Send what is left, and make no more spans."""
    if not is_on():
        return
    from src.common.trace_export import close_tracer

    _State.tracer = None
    close_tracer()


@contextmanager
def traced() -> Generator[None]:
    """Trace what the block does, where that is wanted."""
    start()
    try:
        yield
    finally:
        stop()


def span(
    name: str, *, calls_out: bool = False, links: "Iterable[Span]" = (), **attributes: Any
) -> "AbstractContextManager[Span | None]":
    """A span of the block, below the current one; None where tracing is off.

    What goes into a name or attribute is like what goes into the logs: ids, and no personal data.
    An exception that leaves the block is told by its type alone.
    """
    if _State.tracer is None:
        return _NOTHING
    return _span(_State.tracer, name, calls_out=calls_out, links=links, attributes=attributes)


@contextmanager
def _span(
    tracer: "Tracer",
    name: str,
    *,
    calls_out: bool,
    links: "Iterable[Span]",
    attributes: Mapping[str, Any],
) -> "Generator[Span]":
    from opentelemetry.trace import Link, SpanKind

    with tracer.start_as_current_span(
        name,
        kind=SpanKind.CLIENT if calls_out else SpanKind.INTERNAL,
        links=[Link(each.get_span_context()) for each in links],
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as made:
        try:
            yield made
        except Exception as error:
            fail(made, error)
            raise


def begin(name: str, callers: "Iterable[Span]", **attributes: Any) -> "Span | None":
    """A span of its own trace, that its maker ends; None where tracing is off.

    It and the callers' spans link to each other.
    """
    if _State.tracer is None:
        return None
    from opentelemetry.context import Context
    from opentelemetry.trace import Link

    waiting = list(callers)
    made = _State.tracer.start_span(
        name,
        context=Context(),
        links=[Link(each.get_span_context()) for each in waiting],
        attributes=attributes,
    )
    for caller in waiting:
        caller.add_link(made.get_span_context())
    return made


def fail(made: "Span", error: BaseException) -> None:
    """Note in a span what went wrong, without what the error says."""
    from opentelemetry.trace import StatusCode

    name = type(error).__qualname__
    if isinstance(error, ExceptionWithErrorType):
        name = error.error_type
    made.set_attribute("error.type", name)
    made.set_status(StatusCode.ERROR)


def current_span() -> "Span | None":
    """The span that is current here; None where there is none."""
    if _State.tracer is None:
        return None
    from opentelemetry.trace import get_current_span

    found = get_current_span()
    return found if found.get_span_context().is_valid else None


def current_ids() -> dict[str, str]:
    """`trace_id` and `span_id` as logs name them; empty outside a trace."""
    found = current_span()
    if found is None:
        return {}
    context = found.get_span_context()
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def trace_engine(engine: "Engine") -> None:
    """Make a span of each statement of this engine, where tracing is on."""
    if not is_on():
        return
    from src.common.trace_export import trace_statements

    trace_statements(engine)
