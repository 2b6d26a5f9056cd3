"""Logs: one JSON object a line in production, readable lines at a terminal.

`logger.warning("Duplicate transaction", session_id=…)` is the style: a constant sentence, then
fields. No secret and no personal data goes into a field; ids do.
"""

import io
import logging
import sys
import threading
from contextlib import suppress
from typing import TextIO

import structlog

from src.common import tracing
from src.common.printable import printable
from src.common.settings import Settings

# At DEBUG some of these print values that may be personal data; Alembic's progress is reported by
# alembic/env.py instead.
_NOISY_LOGGERS = (
    *("alembic.autogenerate", "alembic.runtime", "asyncio", "botocore", "httpcore", "httpx"),
    *("matplotlib", "sqlalchemy_json", "urllib3"),
    "stripe",  # two lines a call
    "uvicorn.access",  # one line a request is ours, and holds no query
)
# Started plainly, uvicorn has given these handlers of its own.
_UVICORNS_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access")

_SENTENCES = {"event", "exception", "stack", "stack_info"}
_WRITING = threading.Lock()


class _Lines:
    """Where structlog's own loggers write: stderr, a line at a time.

    Sent on through the standard library, the line that every request logs costs four times as much
    CPU (decision 0018). As there, a log that cannot be written fails nobody's request.
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name

    def info(self, line: str) -> None:
        """Write a line; the level has been decided on before."""
        with suppress(OSError, ValueError), _WRITING:  # ValueError: closed
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    debug = warning = error = critical = info


def _make_printable(
    _logger: object, _name: str, fields: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Escape what a terminal would act on; a sentence may have several lines, a field has one."""
    for name, value in fields.items():
        if name != "exc_info":
            text = printable(value if isinstance(value, str) else repr(value))
            fields[name] = text if name in _SENTENCES else text.replace("\n", r"\n")
    return fields


def _add_trace(
    _logger: object, _name: str, fields: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Name the trace that a line belongs to."""
    fields.update(tracing.current_ids())
    return fields


def _printable_traceback(lines: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    raw = io.StringIO()
    structlog.dev.plain_traceback(raw, exc_info)
    lines.write(printable(raw.getvalue()))


def configure_logging(settings: Settings) -> None:
    """Set up structlog, and have the standard library's loggers (uvicorn, Alembic) look alike."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if tracing.is_wanted():
        shared.insert(1, _add_trace)
    # Text that others wrote must not act on the terminal; JSON escapes it anyway.
    # No variables in tracebacks, whichever form: a failing function's may be secrets. The console's
    # default would show them.
    readable = settings.is_local or sys.stderr.isatty()
    final: list[structlog.typing.Processor] = (
        [
            _make_printable,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=_printable_traceback
            ),
        ]
        if readable
        else [
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            ),
            structlog.processors.JSONRenderer(),
        ]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=settings.log_level, force=True)
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _UVICORNS_LOGGERS:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    structlog.configure(
        processors=[*shared, *final],
        logger_factory=_Lines,
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        cache_logger_on_first_use=False,
    )
