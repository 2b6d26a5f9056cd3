"""The ways in: over HTTP, by webhook, through the library sync and async, the engine, the ORM.

Each does one operation once, and returns the number of the entry where the answer has it. A
passing condition is a `NotNow`.
"""

import asyncio
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, TypeVar

import httpx
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from benchmarks.calls.webhooks import WEBHOOK_SECRET, event_of
from benchmarks.failover.operations import Operation
from src.common.async_database import run_in_async_database_transaction
from src.common.credits import ledger, requests
from src.common.credits.domain.commands import Command
from src.common.credits.engine.engine import Engine
from src.common.database import SessionLocal, run_in_database_transaction
from src.common.exceptions import Unavailable
from src.common.models.transaction import Transaction
from src.common.models.user import User
from src.common.purchases.packages import PACKAGES
from src.common.stripe.signatures import sign

API_URL = "FAILOVER_API_URL"
API_KEY = "FAILOVER_API_KEY"
HOLD_SECONDS = 3_600
PURCHASED = PACKAGES[0].credits
_HTTP_PATIENCE_SECONDS = 60.0
_PATHS = {
    "spend": "spend",
    "hold": "holds",
    "capture": "holds/{seq}/capture",
    "release": "holds/{seq}/release",
}


T = TypeVar("T")


class NotNow(Exception):
    """The same again may succeed in a moment."""


class Way(ABC):
    """A way in."""

    name: str
    kinds: tuple[str, ...] = ("spend", "hold", "capture", "spend", "hold", "release")
    """What is asked for, in turn; a capture or release is of the hold before it."""

    @abstractmethod
    async def ask(self, operation: Operation) -> int | None:
        """Do it once.

        Raises:
            NotNow: it may be done, or not; with the same key it will be done once.
        """


class Http(Way):
    """Credit operations over HTTP, with the API key of a service."""

    name = "http"

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def ask(self, operation: Operation) -> int | None:
        """Send the request."""
        path = _PATHS[operation.kind].format(seq=operation.hold_seq)
        body: dict[str, Any] = {"amount": operation.amount}
        if operation.kind == "hold":
            body["expires_in_seconds"] = HOLD_SECONDS
        headers = {
            "Authorization": f"Bearer {os.environ[API_KEY]}",
            "Idempotency-Key": operation.key,
        }
        answer = await _posted(
            self._client,
            f"/api/v1/user/{operation.user_id}/credits/{path}",
            headers=headers,
            json=None if operation.kind == "release" else body,
        )
        seq: int = answer["seq"]
        return seq


class Webhook(Way):
    """Stripe's events of paid Checkout Sessions.

    An event that is only accepted is acknowledged too: Stripe never sends it again. The worker has
    to credit it.
    """

    name = "webhook"
    kinds = ("purchase",)

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def ask(self, operation: Operation) -> int | None:
        """Send the event; it always has the same name."""
        body = event_of(uuid.UUID(operation.user_id), operation.key.removeprefix("cs_test_"))
        headers = {"Stripe-Signature": sign(body, WEBHOOK_SECRET)}
        answer = await _posted(self._client, "/api/v1/webhook", headers=headers, content=body)
        if answer["status"] not in ("processed", "already_processed", "accepted"):
            raise RuntimeError(f"The webhook was {answer['status']}")
        return None


async def _posted(client: httpx.AsyncClient, path: str, **request: Any) -> dict[str, Any]:
    try:
        answer = await client.post(path, timeout=_HTTP_PATIENCE_SECONDS, **request)
    except httpx.TransportError as error:
        raise NotNow from error
    if answer.is_server_error:
        raise NotNow
    if answer.is_error:
        raise RuntimeError(f"HTTP {answer.status_code} {answer.text[:200]}")
    content: dict[str, Any] = answer.json()
    return content


class SyncLibrary(Way):
    """The ledger's functions in a database transaction of the caller's."""

    name = "sync"

    async def ask(self, operation: Operation) -> int | None:
        """Commit it, in a thread."""
        command = command_of(operation)

        def run() -> int:
            done = run_in_database_transaction(lambda session: ledger.execute(session, [command]))
            return done[0].seq

        return await _passing(asyncio.to_thread(run))


class AsyncLibrary(Way):
    """The same for async callers."""

    name = "async"

    async def ask(self, operation: Operation) -> int | None:
        """Commit it."""
        command = command_of(operation)

        async def run() -> int:
            done = await run_in_async_database_transaction(
                lambda session: ledger.execute(session, [command])
            )
            return done[0].seq

        return await _passing(run())


class BatchEngine(Way):
    """The process's engine."""

    name = "engine"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def ask(self, operation: Operation) -> int | None:
        """Hand it in, and wait for its own outcome."""

        async def run() -> int:
            return (await self._engine.execute(command_of(operation))).seq

        return await _passing(run())


class DocumentOrm(Way):
    """The document's purchase: its own code, its own answer to a session that was there before."""

    name = "orm"
    kinds = ("purchase",)

    async def ask(self, operation: Operation) -> int | None:
        """Commit it, in a thread."""
        await _passing(asyncio.to_thread(self._purchase, operation))
        return None

    @staticmethod
    def _purchase(operation: Operation) -> None:
        try:
            with SessionLocal.begin() as db:
                user = db.execute(
                    select(User)
                    .where(User.user_id == uuid.UUID(operation.user_id))
                    .with_for_update()
                ).scalar_one()
                user.credits_balance += operation.amount
                db.add(
                    Transaction(
                        user_id=user.user_id,
                        stripe_session_id=operation.key,
                        amount_paid_cents=500,
                        credits_added=operation.amount,
                    )
                )
        except IntegrityError:
            return  # already_processed, in the document's words


def command_of(operation: Operation) -> Command:
    """The operation as the library has it."""
    user_id, amount, key = uuid.UUID(operation.user_id), operation.amount, operation.key
    if operation.kind == "spend":
        return requests.spend(user_id, amount, key=key)
    if operation.kind == "hold":
        return requests.open_hold(user_id, amount, key=key, expires_in_seconds=HOLD_SECONDS)
    assert operation.hold_seq is not None  # noqa: S101  the load opens a hold first
    if operation.kind == "capture":
        return requests.capture(user_id, operation.hold_seq, amount, key=key)
    return requests.release(user_id, operation.hold_seq, key=key)


async def _passing(work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    except (Unavailable, PoolTimeoutError) as error:
        raise NotNow from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise NotNow from error
        raise
