"""Logs: one JSON object a line in production, readable lines at a terminal.

`logger.warning("Duplicate transaction", session_id=…)` is the style: a constant sentence, then
fields. No secret and no personal data goes into a field; ids do.
"""

import logging
import sys

import structlog

from src.common.settings import Settings

# At DEBUG some of these print values that may be personal data; Alembic's progress is reported by
# alembic/env.py instead.
_NOISY_LOGGERS = (
    *("alembic.runtime.migration", "asyncio", "botocore", "httpcore", "httpx"),
    *("sqlalchemy_json", "urllib3"),
    "uvicorn.access",  # one line a request is ours, and holds no query
)
# Started plainly, uvicorn has given these handlers of its own.
_UVICORNS_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access")


def configure_logging(settings: Settings) -> None:
    """Set up structlog, and have the standard library's loggers (uvicorn, Alembic) follow it."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # No variables in tracebacks, whichever form: a failing function's may be secrets. The console's
    # default would show them.
    readable = settings.is_local or sys.stderr.isatty()
    final: list[structlog.typing.Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
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
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
