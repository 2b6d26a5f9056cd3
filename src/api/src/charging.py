"""Charge an endpoint: `Depends(charge(10))` holds before the work and keeps only for a success.

    @router.post("/render", dependencies=[Depends(charge(10))])

The dependency opens a hold. `ChargingMiddleware`, beside it, settles it before the first byte of
the answer: a 2xx or 3xx is captured (if that fails the caller gets 503 and the credits back), a
returned 4xx or 5xx, an exception, or a client that has hung up is released. A dependency alone
could not: it never sees a returned status. A request that is cancelled is released too, unless it
was being captured, which no cancellation cuts short. A process that dies leaves the hold to its
expiry.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import structlog
from fastapi import Request

from src.api.src.dependencies import CallingUser
from src.api.src.error_handlers import error_answer
from src.common.async_database import run_in_async_database_transaction
from src.common.credits.digest import digest_of
from src.common.credits.reservation import (
    Reservation,
    give_back_to_end,
    open_to_end,
    settle_to_end,
)
from src.common.exceptions import ExceptionWithErrorType, SettingsError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOLD_SECONDS = 300
"""How long an endpoint may take; a dead process's hold goes back after it."""
FIRST_ERROR_STATUS = 400
_RESERVATIONS = "flashslides.reservations"

logger = structlog.get_logger(__name__)


def charge(
    amount: int, *, expires_in_seconds: int = HOLD_SECONDS
) -> Callable[[Request, CallingUser], Awaitable[Reservation]]:
    """A dependency that charges the calling user `amount` credits if the endpoint succeeds.

    It gives the endpoint the `Reservation`, whose `used` may be lowered to charge less. A request
    with an `Idempotency-Key` is charged once however often it is sent; any other, each time.

    Raises:
        InsufficientCredits: INSUFFICIENT_CREDITS, before the endpoint runs.
    """

    async def reserve(request: Request, caller: CallingUser) -> Reservation:
        reservations: list[Reservation] | None = request.scope.get(_RESERVATIONS)
        if reservations is None:
            raise SettingsError("charge() needs ChargingMiddleware: app.add_middleware(…)")
        assert caller.user_id is not None  # noqa: S101  CallingUser says so
        request_key = request.headers.get("idempotency-key") or uuid.uuid4().hex
        # A second charge of the same request is another one; dependencies come in a fixed order.
        earlier = [len(reservations)] if reservations else []
        digest = digest_of("charge", request.method, request.url.path, request_key, *earlier)
        reservation = Reservation(
            user_id=caller.user_id,
            amount=amount,
            key=f"charge:{digest.hex()}",
            expires_in_seconds=expires_in_seconds,
            actor=caller.actor,
        )
        reservations.append(reservation)  # also what a cancellation opens is given back
        await open_to_end(run_in_async_database_transaction, reservation)
        return reservation

    return reserve


class ChargingMiddleware:
    """Settle what `charge` reserved, before the first byte of the answer."""

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        reservations: list[Reservation] = []
        scope[_RESERVATIONS] = reservations
        client = _Client(receive)
        refused = False

        async def settle_then_send(message: "Message") -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and _held(reservations):
                kept = message["status"] < FIRST_ERROR_STATUS and not await client.has_hung_up()
                refused = kept and not await _capture(_held(reservations))
                if not kept:
                    await _give_back(reservations)
                if refused:
                    headers = {"Retry-After": "1"}
                    answer = error_answer(503, "DATABASE_BUSY", _refusal(reservations), headers)
                    await answer(scope, receive, send)
            if not refused:
                await send(message)

        try:
            await self.app(scope, client.receive, settle_then_send)
        finally:
            # The application ended without an answer: it raised, or was cancelled.
            await _give_back(reservations)


def _held(reservations: list[Reservation]) -> list[Reservation]:
    return [each for each in reservations if each.is_unsettled]


async def _capture(reservations: list[Reservation]) -> bool:
    """Keep what was used of each; False if that could not be done, and all goes back."""
    try:
        await settle_to_end(run_in_async_database_transaction, reservations)
    except ExceptionWithErrorType as error:
        logger.warning("Could not charge", error_type=error.error_type, reason=error.message)
        await _give_back(reservations)
    return all(each.is_paid for each in reservations)


async def _give_back(reservations: list[Reservation]) -> None:
    await give_back_to_end(run_in_async_database_transaction, reservations)


def _refusal(reservations: list[Reservation]) -> str:
    if _held(reservations):
        return (
            "The work could not be charged for now; sent again with the same Idempotency-Key it is "
            "charged at most once"
        )
    return "The work could not be charged; nothing was taken"


class _Client:
    """The client's end of the connection, which may be asked whether anybody is still there."""

    def __init__(self, receive: "Receive") -> None:
        self._receive = receive
        self._ahead: list[Message] = []

    async def receive(self) -> "Message":
        """The next message, for the application."""
        return self._ahead.pop(0) if self._ahead else await self._receive()

    async def has_hung_up(self) -> bool:
        """Whether the client is known to have gone, without waiting for it."""
        while not self._ahead or self._ahead[-1]["type"] != "http.disconnect":
            waiting = asyncio.ensure_future(self._receive())
            try:
                await asyncio.sleep(0)
                if not waiting.done():
                    return False
            finally:
                waiting.cancel()
            self._ahead.append(waiting.result())  # a body the application has not read yet
        return True
