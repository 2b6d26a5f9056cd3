"""What stands around every page: headers that keep other pages out, and a page for defects."""

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog
from fastapi.responses import HTMLResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request

from src.console.people import person_at
from src.console.rendering import render

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = structlog.get_logger(__name__)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_SAFE = ("GET", "HEAD")
_OWN = ("same-origin", "none")


class HeadersMiddleware:
    """Every answer says that nothing of another host runs in it, and that nobody frames it."""

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve one request."""

        async def send_with_headers(message: "Message") -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers)


class OwnPagesMiddleware:
    """What changes something comes from our own pages, as the browser says, or is refused.

    Beside the token in each form. A browser that says nothing has the token alone.
    """

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["method"] not in _SAFE and _is_foreign(scope):
            answer = HTMLResponse("Another page sent this: nothing was done.", 403)
            await answer(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _is_foreign(scope: "Scope") -> bool:
    headers = Headers(scope=scope)
    if headers.get("sec-fetch-site", "none") not in _OWN:
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host")


def page_of_defect(scope: "Scope", _error: Exception) -> "ASGIApp":
    """What a person sees where something went wrong on our side."""
    request = Request(scope)
    return render(
        request,
        person_at(request),
        "error.html",
        status=500,
        heading="Something went wrong on our side",
        error_type="INTERNAL_ERROR",
        request_id=structlog.contextvars.get_contextvars().get("request_id"),
        sentence="It may have been done or not: look before you repeat it.",
    )
