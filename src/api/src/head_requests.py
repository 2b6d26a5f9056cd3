"""`HEAD` is answered wherever `GET` is: with the same headers and no body (RFC 9110 §9.3.2).

FastAPI answers it nowhere, unlike Starlette; listed as a method of each route it would be an
operation more in the OpenAPI document.
"""

from typing import TYPE_CHECKING

from starlette.routing import Match

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


ASKED_AS_HEAD = "flashslides.asked_as_head"
"""In the scope of a `GET` that was a `HEAD`: a charged endpoint does no work for it."""


class HeadMiddleware:
    """Serve `HEAD` as `GET` and keep the body back, unless the application answers it itself."""

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD" or _is_routed(scope):
            await self.app(scope, receive, send)
            return

        async def send_without_body(message: "Message") -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        as_get = {**scope, "method": "GET", ASKED_AS_HEAD: True}
        try:
            await self.app(as_get, receive, send_without_body)
        finally:
            if "route" in as_get:  # the log wants it
                scope["route"] = as_get["route"]


def _is_routed(scope: "Scope") -> bool:
    return any(route.matches(scope)[0] is Match.FULL for route in scope["app"].routes)
