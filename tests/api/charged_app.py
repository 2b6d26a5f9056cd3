"""An application with an endpoint that costs credits, in this process or in one of its own.

How often the endpoint ran stands in a table beside ours, committed at once. It waits at a gate that
the test may close.
"""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI
from sqlalchemy import text

from src.api.src.charging import charge
from src.api.src.main import create_app
from src.common.async_database import get_async_db
from src.common.credits.reservation import Reservation
from src.local_postgres import ConnectionParameters
from tests.credits.workers import point_to
from tests.fixtures.api import client_of
from tests.postgres.drivers import open_connection

PRICE = 10
GATE = 4_713
RUNS = "SELECT count(*) = %s FROM runs"
TOLD = "SELECT count(*) = %s FROM told"
HOLDS_GATE = "SELECT pg_advisory_lock(4713)"
OPENS_GATE = "SELECT pg_advisory_unlock(4713)"


def prepare(database: ConnectionParameters) -> None:
    """Make the tables in which the endpoint, and whoever asks for it, notes what happened."""
    with open_connection(database) as connection:
        connection.execute("CREATE TABLE runs (hold_seq int)")
        connection.execute("CREATE TABLE told (status int)")


async def note(statement: str, number: int) -> None:
    """Write a number into one of the tables."""
    async with get_async_db() as db, db.begin():
        await db.execute(text(statement), {"number": number})


async def render(reservation: Annotated[Reservation, Depends(charge(PRICE))]) -> dict[str, str]:
    """The work: done when the gate is open."""
    await note("INSERT INTO runs VALUES (:number)", reservation.hold_seq)
    is_open = False
    while not is_open:
        await asyncio.sleep(0.02)
        async with get_async_db() as db, db.begin():
            statement = text("SELECT pg_try_advisory_xact_lock_shared(4713)")
            is_open = bool((await db.execute(statement)).scalar_one())
    return {"slides": uuid.uuid4().hex}


def add_render(app: FastAPI) -> None:
    """Give the application the endpoint."""
    app.post("/api/v1/render")(render)


@dataclass(frozen=True)
class Told:
    """What one request was answered."""

    status: int
    text: str
    is_replay: bool
    retry_after: str | None


def told(answer: httpx.Response) -> Told:
    """The parts of an answer that tests compare."""
    return Told(
        answer.status_code,
        answer.text,
        answer.headers.get("Idempotent-Replayed") == "true",
        answer.headers.get("Retry-After"),
    )


def ask(environment: Mapping[str, str], token: str, keys: Sequence[str]) -> list[Told]:
    """In a process of its own: a request for each of the keys, all at once."""
    point_to(environment)
    return asyncio.run(_ask(token, keys))


async def _ask(token: str, keys: Sequence[str]) -> list[Told]:
    app = create_app()
    add_render(app)
    async with app.router.lifespan_context(app), client_of(app) as api:

        async def one(key: str) -> Told:
            headers = {"Idempotency-Key": key}
            found = told(
                await api.call("POST", "/render", token, headers=headers, json={"deck": 1})
            )
            await note("INSERT INTO told VALUES (:number)", found.status)
            return found

        return await asyncio.gather(*map(one, keys))
