"""A migration by another process must not fail the requests that come after it."""

from contextlib import AsyncExitStack, ExitStack

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic_postgresql_enum.operations.sync_enum_values import SyncEnumValuesOp
from sqlalchemy import Connection, NullPool, TextClause, bindparam, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.types import NullType

from src.common.async_database import get_async_engine
from src.common.database import get_engine
from src.common.postgres.engines import database_url
from src.common.postgres.errors import RetryableDatabaseError, sqlstate_of
from src.common.postgres.retries import ATTEMPTS_MAX
from src.local_postgres import ConnectionParameters
from tests.postgres.drivers import Driver, open_connection, settings_for

CONNECTIONS = ATTEMPTS_MAX + 3
USES = 8
"""More than psycopg's prepare_threshold: the statement is prepared at the server."""
READ = text("SELECT * FROM prices")
DAYS = """
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE days (day int, mood mood);
INSERT INTO days VALUES (1, 'happy');
CREATE FUNCTION mood_of(asked int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  found mood;
BEGIN
  SELECT mood INTO found FROM days WHERE day = asked;
  RETURN found;
END $$
"""
OF_THE_ENUM_S_TYPE = bindparam("m", "happy", NullType())
USES_OF_THE_ENUM = pytest.mark.parametrize(
    ("statement", "row"),
    [
        (text("SELECT day FROM days WHERE mood = CAST('happy' AS mood)"), (1,)),
        (text("SELECT day FROM days WHERE mood = :m").bindparams(OF_THE_ENUM_S_TYPE), (1,)),
        (text("SELECT mood FROM days"), ("happy",)),
        (text("SELECT mood_of(1)"), ("happy",)),
    ],
    ids=["a literal", "a parameter", "a column", "a function's variable"],
)


def _read(session: Session) -> tuple[object, ...]:
    return tuple(session.execute(READ).one())


def rebuild_enum(database: ConnectionParameters) -> None:
    """Give the enum a third value as a migration does: a new type, and the old one is dropped."""
    engine = create_engine(database_url(settings_for(database)), poolclass=NullPool)
    with engine.begin() as connection:
        operations = Operations(MigrationContext.configure(connection))
        SyncEnumValuesOp.sync_enum_values(
            operations, "public", "mood", ["sad", "so-so", "happy"], [("days", "mood")]
        )


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
            await _execute_without_retry(driver, READ)
    assert (caught.value.sqlstate, caught.value.reason) == ("0A000", "cached plan out of date")


@USES_OF_THE_ENUM
async def test_a_request_after_an_enum_was_made_anew_succeeds(
    statement: TextClause,
    row: tuple[object, ...],
    driver: Driver,
    fresh_database: ConnectionParameters,
) -> None:
    """However many pooled connections know the old type, the first request uses the new one."""
    with open_connection(fresh_database) as other:
        other.execute(DAYS)
        await _fill_pool_with_prepared_statements(driver, statement)
        rebuild_enum(fresh_database)
        for _ in range(2):
            found = await driver.transact(lambda session: tuple(session.execute(statement).one()))
            assert found == row


async def test_an_enum_made_anew_is_really_out_of_date(
    driver: Driver, fresh_database: ConnectionParameters
) -> None:
    """Without the retry: the one retryable error, and no connection is kept that has the old type.

    A PL/pgSQL function would go on failing on such a connection for ever.
    """
    statement = text("SELECT mood_of(1)")
    with open_connection(fresh_database) as other:
        other.execute(DAYS)
        await _fill_pool_with_prepared_statements(driver, statement)
        rebuild_enum(fresh_database)
        with pytest.raises(RetryableDatabaseError) as caught:
            await _execute_without_retry(driver, statement)
        assert (caught.value.sqlstate, caught.value.reason) == ("XX000", "cached plan out of date")
        await _execute_without_retry(driver, statement)


async def test_another_internal_error_is_a_mistake(
    driver: Driver, fresh_database: ConnectionParameters
) -> None:
    """The code XX000 alone does not make a stale plan; such work runs once."""
    assert fresh_database
    attempts: list[None] = []

    def fail(session: Session) -> None:
        attempts.append(None)
        session.execute(text("DO $$ BEGIN RAISE 'cache lost' USING ERRCODE = 'XX000'; END $$"))

    with pytest.raises(DBAPIError) as caught:
        await driver.transact(fail)
    assert not isinstance(caught.value, RetryableDatabaseError)
    assert sqlstate_of(caught.value) == "XX000"
    assert len(attempts) == 1


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


async def _fill_pool_with_prepared_statements(driver: Driver, statement: TextClause = READ) -> None:
    """Give every one of several pooled connections the statement, prepared.

    Committed, since psycopg forgets what it prepared with every ROLLBACK.
    """
    if driver.name == "psycopg":
        with ExitStack() as stack:
            for _ in range(CONNECTIONS):
                _use(stack.enter_context(get_engine().connect()), statement)
        return
    async with AsyncExitStack() as async_stack:
        for _ in range(CONNECTIONS):
            entered = await async_stack.enter_async_context(get_async_engine().connect())
            await entered.run_sync(_use, statement)


def _use(connection: Connection, statement: TextClause) -> None:
    for _ in range(USES):
        connection.execute(statement).all()
    connection.commit()


async def _execute_without_retry(driver: Driver, statement: TextClause) -> None:
    if driver.name == "psycopg":
        with get_engine().connect() as connection:
            connection.execute(statement)
        return
    async with get_async_engine().connect() as async_connection:
        await async_connection.execute(statement)
