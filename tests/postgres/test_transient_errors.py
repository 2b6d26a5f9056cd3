"""Every passing condition, met for real on both drivers, arrives as the one retryable error."""

import errno
import gc
import pickle
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import NoReturn

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import OperationalError

from src.common.database import SessionLocal
from src.common.exceptions import DatabaseBusy, ErrorKind
from src.common.postgres.errors import RetryableDatabaseError
from src.local_postgres import ConnectionParameters
from tests.fixtures.databases import Server
from tests.postgres.drivers import (
    Driver,
    Psycopg,
    open_connection,
    read_only,
    refusing_server,
    settings_for,
    terminate,
    until,
)

WAITS = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock')"
SECRET = "ada@example.com"
Work = Callable[[Connection], None]


@pytest.fixture
def other(fresh_database: ConnectionParameters) -> Generator[psycopg.Connection]:
    """Somebody else's connection to a database with two rows worth fighting for."""
    with open_connection(fresh_database) as connection:
        connection.execute("CREATE TABLE rows (id int PRIMARY KEY, n int NOT NULL, secret text)")
        connection.execute("INSERT INTO rows VALUES (1, 0), (2, 0)")
        yield connection


def _lock(connection: Connection, row: int, how: str = "") -> None:
    query = text(f"SELECT id FROM rows WHERE id = :row AND :secret <> '' FOR UPDATE {how}")  # noqa: S608  constants
    connection.execute(query, {"row": row, "secret": SECRET})


@contextmanager
def _wants_row(other: psycopg.Connection, row: int, held: int) -> Generator[threading.Event]:
    """Somebody holds one row and, once the event is set, waits for another in a thread."""
    go = threading.Event()

    def want() -> None:
        go.wait()
        other.execute("SELECT FROM rows WHERE id = %s FOR UPDATE", [row])

    with other.transaction():
        other.execute("SET LOCAL deadlock_timeout = '1h'")  # the driver's side is to find out
        other.execute("SELECT FROM rows WHERE id = %s FOR UPDATE", [held])
        thread = threading.Thread(target=want)
        thread.start()
        try:
            yield go
        finally:
            go.set()
            thread.join()


async def test_a_deadlock(
    driver: Driver, other: psycopg.Connection, fresh_database: ConnectionParameters
) -> None:
    """Two connections take two rows in opposite order."""
    with (
        open_connection(fresh_database) as observer,
        _wants_row(other, row=2, held=1) as other_may_go,
    ):

        def work(connection: Connection) -> None:
            connection.execute(text("SET LOCAL deadlock_timeout = '1ms'"))
            _lock(connection, 2)
            other_may_go.set()
            until(observer, WAITS, other.info.backend_pid)
            _lock(connection, 1)

        error = await _failure(driver, fresh_database, work)
    assert (error.sqlstate, error.reason) == ("40P01", "deadlock")


async def test_a_serialization_failure(
    driver: Driver, other: psycopg.Connection, fresh_database: ConnectionParameters
) -> None:
    """What a SERIALIZABLE transaction read is changed before it writes."""

    def work(connection: Connection) -> None:
        connection = connection.execution_options(isolation_level="SERIALIZABLE")
        connection.execute(text("SELECT sum(n) FROM rows"))
        other.execute("UPDATE rows SET n = n + 1 WHERE id = 1")
        connection.execute(text("UPDATE rows SET n = n + 1 WHERE id = 1"))

    error = await _failure(driver, fresh_database, work)
    assert (error.sqlstate, error.reason) == ("40001", "serialization failure")


@pytest.mark.parametrize(("how", "patience"), [("", 1), ("NOWAIT", 60_000)])
async def test_a_locked_row(
    how: str,
    patience: int,
    driver: Driver,
    other: psycopg.Connection,
    fresh_database: ConnectionParameters,
) -> None:
    """Somebody holds the row longer than lock_timeout, or we would not wait at all."""
    with other.transaction():
        other.execute("SELECT FROM rows WHERE id = 1 FOR UPDATE")
        error = await _failure(
            driver,
            fresh_database,
            lambda connection: _lock(connection, 1, how),
            database_lock_timeout_ms=patience,
        )
    assert error.sqlstate == "55P03"


async def test_a_statement_that_takes_too_long(
    driver: Driver, worker_database: ConnectionParameters
) -> None:
    """The server ends it at statement_timeout."""
    error = await _failure(
        driver,
        worker_database,
        lambda connection: _execute(connection, "SELECT pg_sleep(60)"),
        database_statement_timeout_ms=10,
    )
    assert error.sqlstate == "57014"


@pytest.mark.parametrize("statement", ["SELECT 1", "COMMIT"])
async def test_a_connection_that_the_server_ends(
    statement: str, driver: Driver, worker_database: ConnectionParameters
) -> None:
    """An operator or a failover ends it in the middle, before a statement or before COMMIT."""

    def work(connection: Connection) -> None:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        terminate(worker_database, pid)
        if statement == "COMMIT":
            connection.commit()
        else:
            connection.execute(text(statement))

    error = await _failure(driver, worker_database, work)
    assert error.connection_invalidated
    # A driver that notices the closed socket first has no word of the server's: psycopg says
    # nothing then, and asyncpg a code of its own.
    assert error.sqlstate in {"57P01", "08003", None}


@pytest.mark.parametrize("statement", ["SELECT 1", "COMMIT"])
async def test_a_socket_that_is_gone_while_it_is_waited_for(
    statement: str, worker_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Psycopg says so before it knows the connection for closed: it is lost all the same."""

    def work(connection: Connection) -> None:
        connection.execute(text("SELECT 1"))

        def wait(*_arguments: object, **_options: object) -> NoReturn:
            raise psycopg.OperationalError("connection socket closed")

        monkeypatch.setattr(connection.connection.driver_connection, "wait", wait)
        if statement == "COMMIT":
            connection.commit()
        else:
            connection.execute(text(statement))

    error = await _failure(Psycopg(), worker_database, work)
    assert error.connection_invalidated
    assert (error.sqlstate, error.reason) == (None, "connection lost")


async def test_a_server_that_only_reads(
    driver: Driver, fresh_database: ConnectionParameters
) -> None:
    """The first refused write drops every pooled connection, so the next reaches who takes it."""
    write = text("UPDATE users SET first_name = 'Ada'")
    with read_only(fresh_database):
        for _ in range(2):
            with pytest.raises(RetryableDatabaseError) as caught:
                await driver.transact(lambda session: session.execute(write).close())
            assert (caught.value.sqlstate, caught.value.reason) == ("25006", "server read-only")
    await driver.transact(lambda session: session.execute(text("SELECT 1")).close())
    await driver.transact(lambda session: session.execute(write).close())


async def test_a_socket_that_breaks(driver: Driver, worker_database: ConnectionParameters) -> None:
    """A driver that hands over the bare OSError is understood, and the connection thrown away."""

    def reset(*_: object) -> None:
        raise ConnectionResetError(errno.ECONNRESET, "reset by peer")

    def work(connection: Connection) -> bool:
        event.listen(connection.engine, "do_execute", reset)
        with pytest.raises(RetryableDatabaseError, match="connection lost"):
            connection.execute(text("SELECT 1"))
        return connection.invalidated

    assert await driver.run(settings_for(worker_database), work) == [True]


async def test_a_server_out_of_reach(driver: Driver, worker_database: ConnectionParameters) -> None:
    """Nobody listens at the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = await _failure(driver, worker_database, lambda _: None, database_port=port)
    assert (error.sqlstate, error.reason) == (None, "server not reachable")


async def test_a_socket_that_is_not_there(
    driver: Driver, worker_database: ConnectionParameters
) -> None:
    """DATABASE_HOST names the folder of a unix socket, and no server made one."""
    error = await _failure(driver, worker_database, lambda _: None, database_host="/nonexistent")
    assert error.reason == "server not reachable"


async def test_too_many_connections(
    driver: Driver, server: Server, fresh_database: ConnectionParameters
) -> None:
    """The role may open none (any more)."""
    role = sql.Identifier(f"limited_{fresh_database.database}")
    with server.admin() as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x' CONNECTION LIMIT 0").format(role))
        error = await _failure(
            driver,
            fresh_database,
            lambda _: None,
            database_user=f"limited_{fresh_database.database}",
            database_password="x",
        )
        admin.execute(sql.SQL("DROP ROLE {}").format(role))
    assert (error.sqlstate, error.reason) == ("53300", "too many connections")


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        ("57P03", "the database system is starting up", "server starting or stopping"),
        ("57P03", "the database system is shutting down", "server starting or stopping"),
        ("57P03", "the database system is in recovery mode", "server starting or stopping"),
        ("53300", "sorry, too many clients already", "too many connections"),
        (
            "53300",
            "remaining connection slots are reserved for roles with the SUPERUSER attribute",
            "too many connections",
        ),
        ("08P01", "no more connections allowed (max_client_conn)", "too many connections"),
        ("08P01", "pgbouncer cannot connect to server", "connection lost"),
        ("08P01", "query_wait_timeout", "connection lost"),
    ],
)
async def test_a_server_or_pooler_that_asks_to_come_back(
    code: str,
    message: str,
    reason: str,
    driver: Driver,
    worker_database: ConnectionParameters,
) -> None:
    """PostgreSQL's and PgBouncer's refusals that pass, as they stand on the wire."""
    with refusing_server(code, message) as port:
        error = await _failure(driver, worker_database, lambda _: None, database_port=port)
    assert error.reason == reason


@pytest.mark.parametrize("code", ["53000", "53100", "53200", "53400", "40003"])
async def test_a_server_that_ran_out_of_something(
    code: str, driver: Driver, worker_database: ConnectionParameters
) -> None:
    """A full disk or memory is an operator's to mend, and the client's to try again."""

    def work(connection: Connection) -> None:
        statement = f"DO $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '{code}'; END $$"
        connection.execute(text(statement))

    error = await _failure(driver, worker_database, work)
    assert error.sqlstate == code


def test_the_error_survives_another_process() -> None:
    """Workers hand errors over pickled; meaning and sentence arrive."""
    error = RetryableDatabaseError("40P01", None, "deadlock")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    assert isinstance(copy, RetryableDatabaseError)
    assert (copy.sqlstate, copy.reason, str(copy)) == (error.sqlstate, error.reason, str(error))


def _execute(connection: Connection, statement: str) -> None:
    connection.execute(text(statement))


async def _failure(
    driver: Driver, database: ConnectionParameters, work: Work, **settings: object
) -> RetryableDatabaseError:
    """The one error, as it promises to be; it quotes no parameter and no password."""
    with pytest.raises(RetryableDatabaseError) as caught:
        await driver.run(settings_for(database, **settings), work)
    error = caught.value
    assert isinstance(error, DatabaseBusy)
    assert isinstance(error, OperationalError)
    assert error.kind is ErrorKind.UNAVAILABLE
    assert error.error_type == "DATABASE_BUSY"
    assert (error.retry_after_seconds or 0) >= 1
    assert error.params is None
    for shown in (str(error), repr(error), repr(error.orig)):
        assert SECRET not in shown
        assert database.password not in shown
    return error


def test_a_cursor_of_a_lost_connection_is_closed(fresh_database: ConnectionParameters) -> None:
    """On the server's side too: whatever is left open is warned of when it is freed."""
    with SessionLocal() as session:
        pid = session.scalar(text("SELECT pg_backend_pid()"))
        with open_connection(fresh_database) as other:
            other.execute("SELECT pg_terminate_backend(%s, 60000)", [pid])
        with pytest.raises(RetryableDatabaseError):
            session.execute(
                text("SELECT * FROM pg_class"), execution_options={"stream_results": True}
            )
    gc.collect()
