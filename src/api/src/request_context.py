"""A request id for every request: in the logs, in the answer, in every error's body.

A pure ASGI middleware, because a context variable set here must reach the endpoint's own task.
"""

import re
import secrets
import time
from typing import TYPE_CHECKING

import structlog

from src.api.src import metrics
from src.common.printable import masked_path

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = b"x-request-id"
CACHE_CONTROL = b"cache-control"
EVENT_STREAM = b"text/event-stream"
"""The type of an answer that goes on for as long as somebody watches; its head is what is timed."""
CLIENT_LEFT = 499
"""Nobody gets this answer; it keeps a request that its client gave up out of the 500s."""
_ACCEPTED = re.compile(rb"[A-Za-z0-9._-]{1,64}")

logger = structlog.get_logger("flashslides.access")


def current_request_id() -> str | None:
    """The id of the request being served, or None outside one."""
    found = structlog.contextvars.get_contextvars().get("request_id")
    return str(found) if found else None


class RequestContextMiddleware:
    """Take the caller's `X-Request-ID` if it is harmless, else make one; log one line a request.

    No cache may keep an answer that does not say itself how: most are about one person.
    """

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(HEADER, b"")
        request_id = given if _ACCEPTED.fullmatch(given) else secrets.token_hex(16).encode()
        status: int | None = None
        started = time.perf_counter()
        answered_after: float | None = None

        async def receive_or_leave() -> "Message":
            nonlocal status
            message = await receive()
            if message["type"] == "http.disconnect" and status is None:
                status = CLIENT_LEFT
            return message

        async def send_with_id(message: "Message") -> None:
            nonlocal status, answered_after
            if message["type"] == "http.response.start":
                status = status or message["status"]
                headers = [*message.get("headers", []), (HEADER, request_id)]
                if any(header[1].startswith(EVENT_STREAM) for header in headers):
                    answered_after = time.perf_counter() - started
                if all(name.lower() != CACHE_CONTROL for name, _ in headers):
                    headers.append((CACHE_CONTROL, b"no-store"))
                message["headers"] = headers
            await send(message)

        bound = structlog.contextvars.bind_contextvars(request_id=request_id.decode())
        try:
            await self.app(scope, receive_or_leave, send_with_id)
        finally:
            status = status or 500
            seconds = time.perf_counter() - started
            method, path = scope["method"], loggable_path(scope)
            route = path if scope.get("route") else ""
            metrics.observe_request(method, route, status, answered_after or seconds)
            logger.info(
                "Request",
                method=method,
                path=path,
                status=status,
                duration_ms=round(seconds * 1_000, 1),
            )
            structlog.contextvars.reset_contextvars(**bound)


def loggable_path(scope: "Scope") -> str:
    """The matched route's template, else the path with every segment masked that is no plain word.

    A path's values and its query may hold anything, people's e-mail addresses included: also those
    of a router's prefix, and those with slashes in them.
    """
    template = getattr(scope.get("route"), "path", None)
    if not template:
        return masked_path(scope["path"])
    segments: list[str] = scope["path"].split("/")
    _, *named = str(template).split("/")  # as its router has it, without a prefix
    values: dict[str, object] = scope.get("path_params") or {}
    of_prefix: dict[str, str] = {}
    length = len(named)
    for name, value in values.items():
        if f"{{{name}" in template:
            length += str(value).count("/")  # of {name:path}
        else:
            of_prefix[str(value)] = f"{{{name}}}"
    return "/".join([*(of_prefix.get(each, each) for each in segments[:-length]), *named])
