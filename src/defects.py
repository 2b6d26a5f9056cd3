"""What becomes of a defect of ours in a request: it is logged, and answered as its pages are."""

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = structlog.get_logger(__name__)


class DefectMiddleware:
    """A defect is logged, and answered by what `answer` makes of the request and the error.

    A handler of Starlette's for `Exception` would run outside all middleware, where the request's
    id is gone from logs and answer.
    """

    def __init__(self, app: "ASGIApp", answer: "Callable[[Scope, Exception], ASGIApp]") -> None:
        self.app = app
        self.answer = answer

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve one request."""
        has_begun = False

        async def send_and_note(message: "Message") -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except Exception as error:
            if scope["type"] != "http" or has_begun:
                raise
            logger.exception("Unexpected error")
            await self.answer(scope, error)(scope, receive, send)
