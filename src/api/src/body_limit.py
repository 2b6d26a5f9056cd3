"""Requests with a body larger than we read are answered 413, in the one body of all errors.

FastAPI's `max_body_size` would answer in plain text where Content-Length already says so.
"""

from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from src.api.src.error_handlers import error_answer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_DIGITS_MAX = 15


class BodyLimitMiddleware:
    """Refuse a body by its declared size, or as soon as more than `max_bytes` of it have come."""

    def __init__(self, app: "ASGIApp", max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sentence = f"The body is larger than {self.max_bytes} bytes"
        if self._is_too_large(Headers(scope=scope).get("content-length", "")):
            await error_answer(413, "PAYLOAD_TOO_LARGE", sentence)(scope, receive, send)
            return
        received = 0

        async def receive_within_limit() -> "Message":
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise HTTPException(413, sentence)
            return message

        await self.app(scope, receive_within_limit, send)

    def _is_too_large(self, declared: str) -> bool:
        if not declared.isdecimal():
            return False  # none, or nonsense that the server refuses
        return len(declared) > _DIGITS_MAX or int(declared) > self.max_bytes
