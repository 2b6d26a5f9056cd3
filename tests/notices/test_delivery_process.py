"""The worker as a process: killed in the midst it loses nothing, told to end it ends in time."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from src.local_postgres import ConnectionParameters
from tests.cli.processes import Program, stop
from tests.fixtures.databases import environment_of
from tests.notices.receiver import Received, Receiver, receiving
from tests.notices.sent import (
    add_endpoint,
    add_users,
    give,
    ids_by_user,
    make_due,
    outbox,
    statuses,
)

SOME = 40
"""After so many requests something happens to the worker."""


@pytest.fixture
def program(tmp_path: Path, fresh_database: ConnectionParameters) -> Program:
    """The installed command, which gets signals itself."""
    environment = environment_of(fresh_database) | {"FLASHSLIDES_DATA_DIR": str(tmp_path / "data")}
    return Program(tmp_path, environment, is_installed=True)


@asynccontextmanager
async def slow_receiver() -> AsyncGenerator[tuple[Receiver, asyncio.Event]]:
    """It takes its time for each, and tells when some came."""
    some_came = asyncio.Event()

    async def answering(_request: Received) -> tuple[int, dict[str, str]]:
        await asyncio.sleep(0.01)
        if len(receiver.received) >= SOME:
            some_came.set()
        return 200, {}

    async with receiving(answering) as receiver:
        yield receiver, some_came


async def test_a_worker_killed_in_the_midst_loses_nothing(program: Program) -> None:
    """What it had claimed comes again once the lease is over; each user's in order."""
    async with slow_receiver() as (receiver, some_came):
        add_endpoint(receiver.url)
        give(add_users(60), times=5)
        worker = program.start("worker")
        await some_came.wait()
        worker.kill()
        await asyncio.to_thread(stop, worker)
        left = statuses().count("pending")
        assert left > 0
        make_due()  # as a minute later
        again = program.start("worker", "--once")
        assert await asyncio.to_thread(stop, again) == 0
        assert set(statuses()) == {"delivered"}
        assert receiver.taken_by_user() == ids_by_user()
        assert len(receiver.received) >= 300


async def test_a_worker_that_is_told_to_end_hands_back_what_it_had(program: Program) -> None:
    """It ends by itself and in order: nothing is leased, and no attempt is counted in vain."""
    async with slow_receiver() as (receiver, some_came):
        add_endpoint(receiver.url)
        give(add_users(60), times=5)
        worker = program.start("worker")
        await some_came.wait()
        assert await asyncio.to_thread(stop, worker, signal.SIGTERM) == 0
        left = [each for each in outbox() if each.status == "pending"]
        assert left
        assert {(each.attempts, each.lease_expires_at) for each in left} == {(0, None)}
        again = program.start("worker", "--once")
        assert await asyncio.to_thread(stop, again) == 0
        assert receiver.taken_by_user() == ids_by_user()
    assert "Traceback" not in program.said()
    assert "Cut off" not in program.said()
