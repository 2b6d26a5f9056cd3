"""Bounds request bodies: 413 where one is too large, 408 where it takes too long.

Both answers have the one body of all errors. FastAPI's `max_body_size` would answer in plain text
where Content-Length already says so.
"""

import asyncio
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from src.api.src.error_handlers import error_answer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_DIGITS_MAX = 15
_CLOSE = {"Connection": "close"}
"""No further request can follow a body that nobody reads."""


class BodyLimitMiddleware:
    """Refuse a body by its declared size, or once more than `max_bytes` or not all have come.

    `timeout_seconds` are the whole body's, from when the first of it is asked for.
    """

    def __init__(self, app: "ASGIApp", max_bytes: int, timeout_seconds: float) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.timeout_seconds = timeout_seconds

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sentence = f"The body is larger than {self.max_bytes} bytes"
        if self._is_too_large(_declared(scope)):
            answer = error_answer(413, "PAYLOAD_TOO_LARGE", sentence, _CLOSE)
            await answer(scope, receive, send)
            return
        received = 0
        deadline: float | None = None
        is_complete = False

        async def receive_within_limit() -> "Message":
            nonlocal received, deadline, is_complete
            if is_complete:
                return await receive()
            if deadline is None:
                deadline = asyncio.get_running_loop().time() + self.timeout_seconds
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "The body did not come in time", _CLOSE) from None
            is_complete = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise HTTPException(413, sentence, _CLOSE)
            return message

        await self.app(scope, receive_within_limit, send)

    def _is_too_large(self, declared: bytes) -> bool:
        if not declared.isdigit():
            return False  # none, or nonsense that the server refuses
        return len(declared) > _DIGITS_MAX or int(declared) > self.max_bytes


def _declared(scope: "Scope") -> bytes:
    """The first Content-Length, if any."""
    return next((value for name, value in scope["headers"] if name == b"content-length"), b"")
