"""Many locked users at once: each waits for its own row, for its own time-out, and for no other."""

import asyncio
import datetime as dt
import time
import uuid
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from src.common.credits.engine import attempts
from src.common.credits.engine import queue as engine_queue
from src.common.credits.engine.queue import EngineBusy
from src.common.credits.persistence.reading import Locking
from src.common.database_settings import DatabasePooler
from src.common.postgres.errors import RetryableDatabaseError
from src.local_postgres import ConnectionParameters
from tests.credits.books import spend
from tests.credits.committed import balances, make_users
from tests.credits.engine.batching import all_at_once, locked, metric, running, told, until_waiting
from tests.credits.engine.test_engine_failures import NOTE_TIMEOUTS, change, terminate_engine
from tests.postgres.drivers import open_connection

pytestmark = pytest.mark.xdist_group("credits_engine")

MANY = 40
LONG_MS = 600_000
"""A time-out that no test lives to see."""


@contextmanager
def all_locked(database: ConnectionParameters, people: Sequence[uuid.UUID]) -> Generator[None]:
    """Somebody else's database transaction keeps all these users' rows locked until it ends."""
    with open_connection(database) as other:
        other.execute("BEGIN")
        other.execute("SELECT FROM users WHERE user_id = ANY(%s) FOR UPDATE", [[*people]])
        yield


async def until_parked(number: int) -> None:
    """Wait until so many users are tried apart."""
    while True:
        if metric("parked_users") == number:
            return
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("pooler", [DatabasePooler.NONE, DatabasePooler.TRANSACTION])
@pytest.mark.parametrize("side_lanes", [1, 2])
async def test_who_is_free_is_served_however_many_are_locked(
    fresh_database: ConnectionParameters, side_lanes: int, pooler: DatabasePooler
) -> None:
    """Of many whose rows stay locked, the last whose row comes free is served at once."""
    *kept, freed = make_users(*[100] * (MANY + 1))
    async with running(
        credits_engine_side_lanes=side_lanes,
        credits_engine_lock_timeout_ms=LONG_MS,
        database_pooler=pooler,
    ) as engine:
        with all_locked(fresh_database, kept):
            with locked(fresh_database, freed):
                asked = [engine.submit(spend(who, 1)) for who in kept]
                await until_parked(MANY)
                last = [engine.submit(spend(freed, 1)) for _ in range(3)]
                await until_parked(MANY + 1)
            assert [(await each).balance for each in last] == [99, 98, 97]
            assert not any(each.done() for each in asked)
        assert {told(await each) for each in asked} == {"done"}
    assert balances([*kept, freed]) == [99] * MANY + [97]


async def test_everybody_waits_for_a_time_out_of_their_own(
    fresh_database: ConnectionParameters,
) -> None:
    """While all rows stay locked, all are told in the time of a few time-outs, not of many."""
    people = make_users(*[100] * MANY)
    timeout_ms = 400
    async with running(credits_engine_lock_timeout_ms=timeout_ms) as engine:
        with all_locked(fresh_database, people):
            asked = [engine.submit(spend(who, 1)) for who in people]
            few = asyncio.create_task(asyncio.sleep(10 * timeout_ms / 1_000))
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
            assert not few.done()
            few.cancel()
        assert {told(each) for each in outcomes} == {"DATABASE_BUSY"}
        assert all(isinstance(each, RetryableDatabaseError) for each in outcomes)
        outcomes = await all_at_once(engine, [spend(who, 1) for who in people])
        assert {told(each) for each in outcomes} == {"done"}
    assert balances(people) == [99] * MANY


class FarAhead:
    """A clock that is ten minutes fast: who asks by it asks that much later."""

    @staticmethod
    def perf_counter() -> float:
        """What it shows."""
        return time.perf_counter() + 600


@pytest.mark.parametrize("number", [1, 3])
async def test_who_asks_later_waits_for_longer(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The same users' later operations are not told along with the first, and may be served."""
    people = make_users(*[100] * number)
    async with running(credits_engine_side_lanes=1, credits_engine_lock_timeout_ms=500) as engine:
        with all_locked(fresh_database, people):
            first = [engine.submit(spend(who, 1)) for who in people]
            monkeypatch.setattr(engine_queue, "time", FarAhead)
            later = [engine.submit(spend(who, 2)) for who in people]
            outcomes = await asyncio.gather(*first, return_exceptions=True)
            assert {told(each) for each in outcomes} == {"DATABASE_BUSY"}
            assert not any(each.done() for each in later)
        assert {told(await each) for each in later} == {"done"}
    assert balances(people) == [98] * number


@asynccontextmanager
async def in_many_hands(
    database: ConnectionParameters, who: uuid.UUID, hands: int = 4
) -> AsyncGenerator[None]:
    """So many others lock a user's row, one after the other, and always some wait for it."""
    is_over = False

    def lock_again_and_again(other: psycopg.Connection) -> None:
        while not is_over:
            other.execute("BEGIN")
            other.execute("UPDATE users SET first_name = 'x' WHERE user_id = %s", [who])
            time.sleep(0.005)  # holds it
            other.execute("COMMIT")

    others = [open_connection(database) for _ in range(hands)]
    working = [
        asyncio.create_task(asyncio.to_thread(lock_again_and_again, other.__enter__()))
        for other in others
    ]
    yield
    is_over = True
    await asyncio.gather(*working)
    for other in others:
        other.__exit__(None, None, None)


async def test_a_row_in_many_hands_is_had_in_turn(fresh_database: ConnectionParameters) -> None:
    """It is never found free; its user is served all the same, while many others stay locked."""
    *kept, busy = make_users(*[100] * (MANY + 1))
    async with running(
        credits_engine_lanes=1, credits_engine_side_lanes=1, credits_engine_lock_timeout_ms=30_000
    ) as engine:
        with all_locked(fresh_database, kept[1:]):
            with all_locked(fresh_database, kept[:1]):
                asked = [engine.submit(spend(kept[0], 1))]
                await until_waiting(fresh_database)  # in the only side lane
                asked += [engine.submit(spend(who, 1)) for who in kept[1:]]
                await until_parked(MANY)
            assert told(await asked[0]) == "done"
            async with in_many_hands(fresh_database, busy):
                for _ in range(5):
                    assert told(await engine.execute(spend(busy, 1))) == "done"
            assert not any(each.done() for each in asked[1:])
        assert {told(await each) for each in asked} == {"done"}
    assert balances([*kept, busy]) == [99] * MANY + [95]


@pytest.mark.parametrize("number", [1, 3])
async def test_what_nobody_awaits_any_more_leaves_its_place(
    fresh_database: ConnectionParameters, number: int
) -> None:
    """Operations of locked users that were given up keep no free user out."""
    free, *kept = make_users(*[100] * (number + 1))
    async with running(
        credits_engine_queue_max=number,
        credits_engine_side_lanes=1,
        credits_engine_lock_timeout_ms=LONG_MS,
    ) as engine:
        with all_locked(fresh_database, kept):
            for _ in range(10):
                asked = [engine.submit(spend(who, 50)) for who in kept]
                callers = [asyncio.create_task(engine.execute(spend(free, 1)))]
                await asyncio.wait(callers)
                assert isinstance(callers[0].exception(), EngineBusy)
                for each in asked:
                    each.cancel()
                assert told(await engine.execute(spend(free, 1))) == "done"
                callers = [asyncio.create_task(engine.execute(spend(who, 50))) for who in kept]
                await until_parked(number)
                for each in callers:
                    each.cancel()
                await asyncio.wait(callers)
                assert told(await engine.execute(spend(free, 1))) == "done"
            assert remembered(engine) <= 3 * number
        outcomes = [await engine.execute(spend(who, 1)) for who in kept]
    assert {each.balance for each in outcomes} <= {99, 49}  # what was under way may be done
    assert balances([free]) == [80]


def remembered(engine: Any) -> int:
    """How many operations are in lines, awaited or not."""
    lines = engine._queue._lines  # noqa: SLF001
    return sum(len(line.waiting) for line in lines.values())


async def test_closing_serves_all_who_are_locked(fresh_database: ConnectionParameters) -> None:
    """Also more of one user than a batch takes, and though the lanes have ended by then."""
    people = make_users(100, 100, 100, 100)
    async with running(
        credits_engine_side_lanes=1,
        credits_engine_batch_max=2,
        credits_engine_lock_timeout_ms=LONG_MS,
    ) as engine:
        with all_locked(fresh_database, people):
            asked = [engine.submit(spend(who, 1)) for _ in range(5) for who in people]
            await until_parked(len(people))
            closing = asyncio.create_task(engine.aclose())
            await asyncio.sleep(0)
        await closing
        assert {told(await each) for each in asked} == {"done"}
    assert metric("parked_users") == 0
    assert balances(people) == [95] * 4


async def test_a_row_is_waited_for_no_longer_than_is_left(
    fresh_database: ConnectionParameters,
) -> None:
    """Neither in one wait for a lock, nor in a statement that waits for one after the other."""
    [who] = make_users(100)
    change(fresh_database, *NOTE_TIMEOUTS)
    async with running(
        credits_engine_lock_timeout_ms=20_000, database_statement_timeout_ms=30_000
    ) as engine:
        with locked(fresh_database, who):
            asked = engine.submit(spend(who, 1))
            await until_waiting(fresh_database)
        assert told(await asked) == "done"
    with open_connection(fresh_database) as connection:
        rows = connection.execute(
            "SELECT lock_timeout::interval, statement_timeout::interval FROM noted"
        ).fetchall()
    [timeouts] = rows
    assert dt.timedelta(0) < min(timeouts) <= max(timeouts) <= dt.timedelta(seconds=20)
    assert balances([who]) == [99]


async def test_a_connection_lost_while_others_wait_holds_up_nobody(
    fresh_database: ConnectionParameters,
) -> None:
    """Who was in the side lane is told; the others are served once their rows are free."""
    people = make_users(*[100] * 4)
    async with running(
        credits_engine_side_lanes=1, credits_engine_lock_timeout_ms=LONG_MS
    ) as engine:
        with all_locked(fresh_database, people):
            asked = [engine.submit(spend(people[0], 1))]
            await until_waiting(fresh_database)
            asked += [engine.submit(spend(who, 1)) for who in people[1:]]
            await until_parked(4)
            terminate_engine(fresh_database)
            assert told(*await asyncio.gather(asked[0], return_exceptions=True)) == "DATABASE_BUSY"
        assert {told(await each) for each in asked[1:]} == {"done"}
    assert balances(people) == [100, 99, 99, 99]


async def test_a_bug_while_the_free_are_served_is_told_them(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, and everybody else is served."""
    people = make_users(100, 100, 100)
    run = attempts.run

    async def fail_once(queue: Any, connection: Any, batch: Any, locking: Locking) -> Any:
        if locking is Locking.SKIP:
            monkeypatch.setattr(attempts, "run", run)
            raise ZeroDivisionError
        return await run(queue, connection, batch, locking)

    async with running(
        credits_engine_side_lanes=1, credits_engine_lock_timeout_ms=LONG_MS
    ) as engine:
        with all_locked(fresh_database, [people[0], people[2]]):
            with locked(fresh_database, people[1]):
                asked = [engine.submit(spend(people[0], 1))]
                await until_waiting(fresh_database)
                asked += [engine.submit(spend(who, 1)) for who in people[1:]]
                await until_parked(3)
                monkeypatch.setattr(attempts, "run", fail_once)
            with capture_logs() as logs, pytest.raises(ZeroDivisionError):
                await asked[1]
        assert {told(await asked[number]) for number in (0, 2)} == {"done"}
        assert told(await engine.execute(spend(people[1], 1))) == "done"
    assert [each["event"] for each in logs] == [
        "A side lane of the credits' engine failed by a bug"
    ]
    assert balances(people) == [99] * 3
