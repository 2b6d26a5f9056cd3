"""Which pages of other origins may call the API from a browser, and what they may read (CORS).

Callers send a bearer token, never a cookie, so no credentials of the browser's are allowed.
"""

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from src.common.settings import Settings

METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
"""Ours, and those of applications that `install` made ready."""
REQUEST_HEADERS = (
    *("Authorization", "Idempotency-Key", "If-None-Match", "Last-Event-ID"),
    *("X-Request-ID", "X-User-ID"),
    *("X-Read-After", "traceparent", "tracestate"),
)
ANSWER_HEADERS = (
    *("ETag", "Idempotent-Replayed", "Retry-After", "WWW-Authenticate", "X-Request-ID"),
    *("X-Read-After", "X-Read-As-Of", "X-Read-From", "X-Read-Lag-Seconds"),
)
"""Those beyond the few that browsers always show."""


def allow_cors(app: FastAPI, settings: Settings) -> None:
    """Let pages of the configured origins call `app`, and read its errors as well.

    To be added outside of whatever answers itself. Without an origin nothing changes.
    """
    if settings.allowed_cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_cors_origins,
            allow_methods=METHODS,
            allow_headers=REQUEST_HEADERS,
            expose_headers=ANSWER_HEADERS,
        )
