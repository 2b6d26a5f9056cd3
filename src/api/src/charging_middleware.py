"""Captures or releases what a request holds, before the first byte of its answer.

A 2xx or 3xx is captured (if that fails the caller gets 503 and the credits back), a returned 4xx or
5xx, an exception, or a client that has hung up is released. A dependency alone could not: it never
sees a returned status. A request that is cancelled is released too, unless it was being captured,
which no cancellation cuts short.

The answer of a request with a key is kept with its charge, in one database transaction. So it is
held back until all of it is there, where it says how long it is; one that is streamed is charged
when it begins, and not kept.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import structlog
from fastapi import Request
from sqlalchemy.orm import Session
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from src.api.src.error_handlers import error_answer
from src.common.async_database import run_in_async_database_transaction
from src.common.credits import charged_requests, ledger
from src.common.credits.charged_requests import Answer, Claim
from src.common.credits.reservation import (
    DATABASE_ERRORS,
    Reservation,
    ReservationState,
    do_to_end,
    give_back_to_end,
)
from src.common.exceptions import SettingsError
from src.common.postgres.kept_errors import keep
from src.common.routing import async_routed_to

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

T = TypeVar("T")

FIRST_ERROR_STATUS = 400
_WITHOUT_BODY = frozenset({204, 304})
_OF_ONE_REQUEST = frozenset({206, 304})
"""Statuses that answer what this request's headers asked; another may ask for all of it."""
_REPLAYED = (b"idempotent-replayed", b"true")
_IN_SCOPE = "flashslides.charges"

logger = structlog.get_logger(__name__)


@dataclass
class Charges:
    """What one request is charged, and the try of it where it has a key."""

    client: "Client"
    reservations: list[Reservation] = field(default_factory=list[Reservation])
    claim: Claim | None = None
    stored: Answer | None = None
    """What the same request was answered before: it is not done again."""
    replay_seconds: int = 0
    replay_max_bytes: int = 0

    @property
    def unsettled(self) -> list[Reservation]:
        """What is held, or may be."""
        return [each for each in self.reservations if each.is_unsettled]

    def keeps(self, answer_bytes: int) -> bool:
        """Whether an answer of that size is kept for whoever asks again."""
        is_kept = self.claim is not None and self.replay_seconds > 0
        return is_kept and answer_bytes <= self.replay_max_bytes

    async def capture(self, answer: Answer | None) -> bool:
        """Keep what was used, and the answer; False if that failed, and all goes back."""
        unsettled = self.unsettled

        def work(session: Session) -> list[ReservationState]:
            if self.claim is not None:
                ledger.lock_users(session, [self.claim.user_id])
                charged_requests.confirm(session, self.claim)
            states = [each.settle(session) for each in unsettled]
            if self.claim is not None and answer is not None:
                charged_requests.keep_answer(session, self.claim, answer, self.replay_seconds)
            return states

        used = next((each for each in unsettled if each.used), None)
        if self.claim is not None and used is not None:
            used.capture_key = self.claim.capture_key  # by it the journal knows the request
        try:
            await do_to_end(self._run, unsettled, work)
        except DATABASE_ERRORS as error:
            kept = keep(error)
            logger.warning("Could not charge", error_type=kept.error_type, reason=kept.message)
            await self.give_back()
        return all(each.is_paid for each in self.reservations)

    async def give_back(self) -> None:
        """Give back what is held."""
        await give_back_to_end(self._run, self.reservations)

    async def _run(self, work: Callable[[Session], T]) -> T:
        """Run work about whoever pays, who is the same for all of a request."""
        async with async_routed_to(self.reservations[0].user_id):
            return await run_in_async_database_transaction(work)


def charges_of(request: Request) -> Charges:
    """The charges of a request, noted by the middleware.

    Raises:
        SettingsError: the application has no such middleware.
    """
    charges: Charges | None = request.scope.get(_IN_SCOPE)
    if charges is None:
        raise SettingsError("charge() needs what src.api.src.install gives: call install(app)")
    return charges


class ChargingMiddleware:
    """Settle what `charge` reserved, before the first byte of the answer."""

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        charges = Charges(Client(receive, digests="idempotency-key" in headers))
        answering = _Answering(charges, scope, receive, send)
        scope[_IN_SCOPE] = charges
        try:
            await self.app(scope, charges.client.receive, answering.send)
        finally:
            # The application ended without an answer: it raised, or was cancelled.
            await charges.give_back()


class _Answering:
    """The answer on its way to the client."""

    def __init__(self, charges: Charges, scope: "Scope", receive: "Receive", send: "Send") -> None:
        self._charges = charges
        self._scope, self._receive, self._send = scope, receive, send
        self._held_back: list[Message] = []
        self._is_replaced = False
        """Whether another answer was sent in place of the application's."""

    async def send(self, message: "Message") -> None:
        """Take the next message from the application."""
        if self._is_replaced:
            return
        if self._charges.stored is not None:
            self._is_replaced = True
            await self._replay(self._charges.stored)
        elif self._held_back or (
            message["type"] == "http.response.start" and self._charges.unsettled
        ):
            self._held_back.append(message)
            if not self._waits_for_more():
                await self._settle_and_send()
        else:
            await self._send(message)

    def _waits_for_more(self) -> bool:
        start, *rest = self._held_back
        if rest:
            is_open = rest[-1]["type"] == "http.response.body" and rest[-1].get("more_body", False)
            return is_open and self._charges.keeps(self._size())
        if start["status"] >= FIRST_ERROR_STATUS:
            return False
        declared = Headers(raw=start.get("headers", [])).get("content-length", "")
        if start["status"] in _WITHOUT_BODY:
            declared = "0"
        return declared.isdecimal() and self._charges.keeps(self._size() + int(declared))

    def _size(self) -> int:
        start, *rest = self._held_back
        headers = sum(len(name) + len(value) for name, value in start.get("headers", []))
        return headers + sum(len(each.get("body", b"")) for each in rest)

    async def _settle_and_send(self) -> None:
        charges = self._charges
        messages, self._held_back = self._held_back, []
        is_success = messages[0]["status"] < FIRST_ERROR_STATUS
        if is_success and not await charges.client.has_hung_up():
            if not await charges.capture(self._whole_answer(messages)):
                self._is_replaced = True
                await self._refuse()
                return
        else:
            await charges.give_back()
        for each in messages:
            await self._send(each)

    def _whole_answer(self, messages: "list[Message]") -> Answer | None:
        """The answer to keep; None where not all of it is there, or it is too large."""
        start, *rest = messages
        is_whole = rest and all(each["type"] == "http.response.body" for each in rest)
        is_partial = start["status"] in _OF_ONE_REQUEST
        if not is_whole or is_partial or rest[-1].get("more_body", False):
            return None
        body = b"".join(each.get("body", b"") for each in rest)
        headers = [
            (bytes(name), bytes(value))
            for name, value in start.get("headers", [])
            if name.lower() != b"set-cookie"  # a session, which may have ended meanwhile
        ]
        size = len(body) + sum(len(name) + len(value) for name, value in headers)
        return Answer(start["status"], headers, body) if self._charges.keeps(size) else None

    async def _replay(self, answer: Answer) -> None:
        headers = [*answer.headers, _REPLAYED]
        start = {"type": "http.response.start", "status": answer.status, "headers": headers}
        await self._send(start)
        await self._send({"type": "http.response.body", "body": answer.body})

    async def _refuse(self) -> None:
        answer = error_answer(503, "DATABASE_BUSY", self._refusal(), {"Retry-After": "1"})
        await answer(self._scope, self._receive, self._send)

    def _refusal(self) -> str:
        if self._charges.unsettled:
            return (
                "The work could not be charged for now; sent again with the same Idempotency-Key "
                "it is charged at most once"
            )
        return "The work could not be charged; nothing was taken"


class Client:
    """The client's end of the connection: its request's body, and whether anybody is still there.

    What is read of the body before the application asks for it is kept for the application; how
    much that may be, and how long it may take, is `BodyLimitMiddleware`'s to say.
    """

    def __init__(self, receive: "Receive", *, digests: bool) -> None:
        self._receive = receive
        self._ahead: list[Message] = []
        self._digest = hashlib.sha256() if digests else None
        self._has_all = False

    async def receive(self) -> "Message":
        """The next message, for the application."""
        return self._ahead.pop(0) if self._ahead else await self._pull()

    async def body_digest(self) -> bytes:
        """SHA-256 of the whole body, whoever reads it, of a request that has a key.

        Raises:
            ClientDisconnect: there will be no more of it.
        """
        assert self._digest is not None  # noqa: S101  it has a key
        while not self._has_all:
            message = await self._pull()
            self._ahead.append(message)
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
        return self._digest.digest()

    async def has_hung_up(self) -> bool:
        """Whether the client is known to have gone, without waiting for it."""
        while not self._ahead or self._ahead[-1]["type"] != "http.disconnect":
            waiting = asyncio.ensure_future(self._pull())
            try:
                await asyncio.sleep(0)
                if not waiting.done():
                    return False
            finally:
                waiting.cancel()
            try:
                self._ahead.append(waiting.result())  # a body the application has not read yet
            except HTTPException:
                return False  # a body out of bounds, which the application did not want
        return True

    async def _pull(self) -> "Message":
        message = await self._receive()
        if message["type"] == "http.request":
            if self._digest is not None:
                self._digest.update(message.get("body", b""))
            self._has_all = not message.get("more_body", False)
        return message
