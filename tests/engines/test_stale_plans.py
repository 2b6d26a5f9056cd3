"""A migration by another process must not fail the requests that come after it."""

from contextlib import AsyncExitStack, ExitStack

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from src.common.async_database import get_async_engine
from src.common.database import get_engine
from src.common.exceptions import RetryableDatabaseError
from src.common.retries import ATTEMPTS_MAX
from src.local_postgres import ConnectionParameters
from tests.engines.drivers import Driver, open_connection

CONNECTIONS = ATTEMPTS_MAX + 3
USES = 8
"""More than psycopg's prepare_threshold: the statement is prepared at the server."""
READ = text("SELECT * FROM prices")


def _read(session: Session) -> tuple[object, ...]:
    return tuple(session.execute(READ).one())


@pytest.mark.parametrize(
    ("migration", "row"),
    [
        ("ALTER TABLE prices ADD COLUMN currency text DEFAULT 'usd'", (500, "usd")),
        ("ALTER TABLE prices ALTER COLUMN cents TYPE text", ("500",)),
        ("ALTER TABLE prices ALTER COLUMN cents TYPE bigint", (500,)),
        ("DROP TABLE prices; CREATE TABLE prices AS SELECT 'new' AS name", ("new",)),
    ],
    ids=["a column more", "another type", "a wider type", "another table"],
)
async def test_a_request_after_a_migration_succeeds(
    migration: str, row: tuple[object, ...], driver: Driver, fresh_database: ConnectionParameters
) -> None:
    """However many pooled connections hold the old plan, the first request sees the new table."""
    with open_connection(fresh_database) as other:
        other.execute("CREATE TABLE prices (cents int)")
        other.execute("INSERT INTO prices VALUES (500)")
        await _fill_pool_with_prepared_statements(driver)
        other.execute(migration.encode())
        assert await driver.transact(_read) == row
        assert await driver.transact(_read) == row


async def test_the_plan_is_really_out_of_date(
    driver: Driver, fresh_database: ConnectionParameters
) -> None:
    """Without the retry the same request fails, with the one retryable error."""
    with open_connection(fresh_database) as other:
        other.execute("CREATE TABLE prices (cents int)")
        other.execute("INSERT INTO prices VALUES (500)")
        await _fill_pool_with_prepared_statements(driver)
        other.execute("ALTER TABLE prices ADD COLUMN currency text")
        with pytest.raises(RetryableDatabaseError) as caught:
            await _read_without_retry(driver)
    assert (caught.value.sqlstate, caught.value.reason) == ("0A000", "cached plan out of date")


async def test_a_statement_the_server_does_not_support_is_a_mistake(
    driver: Driver, fresh_database: ConnectionParameters
) -> None:
    """The code 0A000 alone does not make a stale plan; such work runs once."""
    assert fresh_database
    attempts: list[None] = []

    def unsupported(session: Session) -> None:
        attempts.append(None)
        session.execute(text("SELECT count(*) AS cached FROM pg_class FOR UPDATE"))

    with pytest.raises(DBAPIError) as caught:
        await driver.transact(unsupported)
    assert not isinstance(caught.value, RetryableDatabaseError)
    assert len(attempts) == 1


async def _fill_pool_with_prepared_statements(driver: Driver) -> None:
    """Give every one of several pooled connections the statement, prepared.

    Committed, since psycopg forgets what it prepared with every ROLLBACK.
    """
    if driver.name == "psycopg":
        with ExitStack() as stack:
            for _ in range(CONNECTIONS):
                _use(stack.enter_context(get_engine().connect()))
        return
    async with AsyncExitStack() as async_stack:
        for _ in range(CONNECTIONS):
            entered = await async_stack.enter_async_context(get_async_engine().connect())
            await entered.run_sync(_use)


def _use(connection: Connection) -> None:
    for _ in range(USES):
        connection.execute(READ).all()
    connection.commit()


async def _read_without_retry(driver: Driver) -> None:
    if driver.name == "psycopg":
        with get_engine().connect() as connection:
            connection.execute(READ)
        return
    async with get_async_engine().connect() as async_connection:
        await async_connection.run_sync(lambda sync: sync.execute(READ))
