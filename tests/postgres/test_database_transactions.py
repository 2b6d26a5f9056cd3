"""`run_in_database_transaction` and its async form: commit once, retry what the server undid."""

import asyncio
import itertools
import threading
from collections.abc import Callable, Generator

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from src.common.exceptions import NotFound
from src.common.postgres.errors import RetryableDatabaseError
from src.common.postgres.retries import ATTEMPTS_MAX
from src.local_postgres import ConnectionParameters
from tests.postgres.drivers import Driver, open_connection, terminate, until

BOTH_HOLD_A_ROW = """
SELECT count(*) = 2 FROM pg_locks JOIN pg_database ON pg_database.oid = database
WHERE locktype = 'advisory' AND datname = current_database()
"""


@pytest.fixture
def observer(fresh_database: ConnectionParameters) -> Generator[psycopg.Connection]:
    """A look from outside at two counters; the server finds deadlocks quickly here."""
    with open_connection(fresh_database) as connection:
        connection.execute("CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL)")
        connection.execute("INSERT INTO counters VALUES (1, 0), (2, 0)")
        connection.execute(
            f"ALTER DATABASE {fresh_database.database} SET deadlock_timeout = '10ms'".encode()
        )
        yield connection


def _counters(observer: psycopg.Connection) -> list[int]:
    return [row[0] for row in observer.execute("SELECT n FROM counters ORDER BY id")]


def _add_one(session: Session, row: int) -> None:
    session.execute(text("UPDATE counters SET n = n + 1 WHERE id = :row"), {"row": row})


async def test_the_work_is_committed_once_and_its_result_returned(
    driver: Driver, observer: psycopg.Connection
) -> None:
    """Inside nothing shows to others, afterwards all of it, and the work ran once."""
    seen: list[list[int]] = []

    def work(session: Session) -> str:
        _add_one(session, 1)
        _add_one(session, 2)
        seen.append(_counters(observer))
        return "done"

    assert await driver.transact(work) == "done"
    assert seen == [[0, 0]]
    assert _counters(observer) == [1, 1]


async def test_two_in_a_deadlock_both_succeed(driver: Driver, observer: psycopg.Connection) -> None:
    """The one the server picks is run again from its start; nothing is done twice."""
    attempts: list[int] = []

    def add_to_both(first: int, second: int) -> Callable[[Session], None]:
        own_attempts = itertools.count(1)

        def work(session: Session) -> None:
            attempt = next(own_attempts)
            attempts.append(attempt)
            _add_one(session, first)
            if attempt == 1:  # wait until the other holds its first row as well
                session.execute(text("SELECT pg_advisory_xact_lock(:row)"), {"row": first})
                while not session.execute(text(BOTH_HOLD_A_ROW)).scalar_one():
                    pass
            _add_one(session, second)

        return work

    await asyncio.gather(driver.transact(add_to_both(1, 2)), driver.transact(add_to_both(2, 1)))
    assert _counters(observer) == [2, 2]
    assert sorted(attempts) == [1, 1, 2]


async def test_many_updates_in_opposite_order_lose_nothing(
    driver: Driver, observer: psycopg.Connection
) -> None:
    """However they collide, every one counts exactly once and no error comes out."""
    workers, each = 4, 10

    async def worker(number: int) -> None:
        rows = (1, 2) if number % 2 else (2, 1)

        def add_to_both(session: Session) -> None:
            for row in rows:
                _add_one(session, row)

        for _ in range(each):
            await driver.transact(add_to_both)

    await asyncio.gather(*(worker(number) for number in range(workers)))
    assert _counters(observer) == [workers * each] * 2


async def test_serializable_work_counts_exactly(
    driver: Driver, observer: psycopg.Connection
) -> None:
    """Read, compute, write, as SERIALIZABLE: what the server refuses is run again."""
    workers, each = 3, 5

    def read_then_write(session: Session) -> None:
        session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        read = session.execute(text("SELECT n FROM counters WHERE id = 1")).scalar_one()
        session.execute(text("UPDATE counters SET n = :n WHERE id = 1"), {"n": read + 1})

    async def worker() -> int:
        for done in range(each):
            try:
                await driver.transact(read_then_write)
            except RetryableDatabaseError:
                return done  # gave up, as promised, having written nothing
        return each

    done = await asyncio.gather(*(worker() for _ in range(workers)))
    assert _counters(observer) == [sum(done), 0]
    assert sum(done) > 0


async def test_it_gives_up_after_the_last_attempt_with_the_one_error(
    driver: Driver, observer: psycopg.Connection
) -> None:
    """Work that never succeeds is tried ATTEMPTS_MAX times and leaves nothing behind."""
    attempts: list[None] = []

    def always_too_late(session: Session) -> None:
        attempts.append(None)
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        _add_one(session, 2)
        observer.execute("UPDATE counters SET n = n + 1 WHERE id = 1")
        _add_one(session, 1)

    with pytest.raises(RetryableDatabaseError) as caught:
        await driver.transact(always_too_late)
    assert caught.value.sqlstate == "40001"
    assert len(attempts) == ATTEMPTS_MAX
    assert _counters(observer) == [ATTEMPTS_MAX, 0]


@pytest.mark.parametrize("error", [NotFound("gone", "USER_NOT_FOUND"), KeyboardInterrupt()])
async def test_any_other_error_rolls_everything_back_and_is_not_retried(
    error: BaseException, driver: Driver, observer: psycopg.Connection
) -> None:
    """The caller gets the very error it raised, after one attempt."""
    attempts: list[None] = []

    def fail(session: Session) -> None:
        attempts.append(None)
        _add_one(session, 1)
        raise error

    with pytest.raises(type(error)) as caught:
        await _transact_here(driver, fail)
    assert caught.value is error
    assert len(attempts) == 1
    assert _counters(observer) == [0, 0]


async def test_a_violated_constraint_rolls_everything_back_and_is_not_retried(
    driver: Driver, observer: psycopg.Connection
) -> None:
    """An IntegrityError would only come again."""
    attempts: list[None] = []

    def insert_twice(session: Session) -> None:
        attempts.append(None)
        _add_one(session, 1)
        session.execute(text("INSERT INTO counters VALUES (1, 0)"))

    with pytest.raises(IntegrityError):
        await driver.transact(insert_twice)
    assert len(attempts) == 1
    assert _counters(observer) == [0, 0]


async def test_a_lost_connection_is_not_retried(
    driver: Driver, observer: psycopg.Connection, fresh_database: ConnectionParameters
) -> None:
    """Its COMMIT may have arrived; only the caller's idempotency key can tell."""
    attempts: list[None] = []

    def lose_it(session: Session) -> None:
        attempts.append(None)
        _add_one(session, 1)
        terminate(fresh_database, session.execute(text("SELECT pg_backend_pid()")).scalar_one())

    with pytest.raises(RetryableDatabaseError):
        await driver.transact(lose_it)
    assert len(attempts) == 1
    assert _counters(observer) == [0, 0]


async def test_a_cancelled_task_rolls_back(
    observer: psycopg.Connection, fresh_database: ConnectionParameters
) -> None:
    """A client that hangs up in the middle leaves neither a change nor an open transaction."""
    from src.common.async_database import run_in_async_database_transaction

    assert fresh_database
    started = threading.Event()

    def slow(session: Session) -> None:
        _add_one(session, 1)
        started.set()
        session.execute(text("SELECT pg_sleep(60)"))

    task = asyncio.create_task(run_in_async_database_transaction(slow))
    await asyncio.to_thread(started.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    idle = (
        "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND state <> 'idle')"
    )
    await asyncio.to_thread(until, observer, idle)
    assert _counters(observer) == [0, 0]


async def _transact_here(driver: Driver, work: Callable[[Session], None]) -> None:
    """As `driver.transact`, in this thread: asyncio swallows a KeyboardInterrupt in another."""
    if driver.name == "psycopg":
        from src.common.database import run_in_database_transaction

        run_in_database_transaction(work)
    else:
        await driver.transact(work)
