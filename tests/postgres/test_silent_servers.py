"""A server that says nothing any more, its sockets still open, is given up; others are not."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from src.common.postgres import silent_servers
from src.common.postgres.engines import build_async_engine, build_engine
from src.common.postgres.errors import RetryableDatabaseError
from src.common.settings import Settings
from src.local_postgres import ConnectionParameters
from tests.postgres.drivers import Driver, settings_for


class Wire:
    """A TCP proxy before the server; once cut it swallows whatever either side says."""

    def __init__(self, database: ConnectionParameters, port: int = 0) -> None:
        self.listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self.listener.getsockname()[1])
        self.connections = 0
        self._database = database
        self._is_cut: list[threading.Event] = []
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Silence the connections there are; later ones work."""
        for event in self._is_cut:
            event.set()

    def close(self) -> None:
        """Close everything."""
        for each in (self.listener, *self._sockets):
            with suppress(OSError):  # an end that is closed already
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:  # the test is over
                return
            server = socket.create_connection((self._database.host, self._database.port))
            is_cut = threading.Event()
            self.connections += 1
            self._is_cut.append(is_cut)
            self._sockets += [client, server]
            for ends in ((client, server), (server, client)):
                threading.Thread(target=_carry, args=(*ends, is_cut), daemon=True).start()


def _carry(source: socket.socket, target: socket.socket, is_cut: threading.Event) -> None:
    try:
        while data := source.recv(65_536):
            if not is_cut.is_set():
                target.sendall(data)
        if not is_cut.is_set():
            target.shutdown(socket.SHUT_WR)
    except OSError:
        return


@contextmanager
def wire_to(database: ConnectionParameters, port: int = 0) -> Generator[Wire]:
    """A wire for the block."""
    wire = Wire(database, port)
    try:
        yield wire
    finally:
        wire.close()


@pytest.fixture
def wire(worker_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch) -> Generator[Wire]:
    """A wire to the server, and little patience with it."""
    monkeypatch.setattr(silent_servers, "SILENCE_SECONDS", 0.2)
    with wire_to(worker_database) as made:
        yield made


def _settings(wire: Wire, database: ConnectionParameters, **others: object) -> Settings:
    options: dict[str, object] = {
        "database_host": "127.0.0.1",
        "database_port": wire.port,
        "database_statement_timeout_ms": 200,
        "database_pool_size": 1,
        "database_async_pool_size": 1,
    }
    return settings_for(database, **(options | others))


def _select(connection: Connection) -> None:
    connection.execute(text("SELECT 1"))


STEPS: dict[str, Callable[[Connection], None]] = {
    "a statement": _select,
    "COMMIT": lambda connection: connection.commit(),
    "ROLLBACK": lambda connection: connection.rollback(),
    "SAVEPOINT": lambda connection: connection.begin_nested().rollback(),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
async def test_a_server_that_falls_silent_is_a_lost_connection(
    step: Callable[[Connection], None],
    driver: Driver,
    wire: Wire,
    worker_database: ConnectionParameters,
) -> None:
    """Whatever waits for it ends as the retryable error, and the connection is thrown away."""

    def work(connection: Connection) -> bool:
        _select(connection)
        wire.cut()
        with pytest.raises(RetryableDatabaseError, match="connection lost"):
            step(connection)
        return connection.invalidated

    settings = _settings(wire, worker_database)
    assert await driver.run(settings, work, lambda c: c.invalidated) == [True, False]


async def test_a_pool_s_ping_notices(
    driver: Driver, wire: Wire, worker_database: ConnectionParameters
) -> None:
    """With pre-ping the next one gets a new connection and no error."""

    def use(connection: Connection) -> None:
        _select(connection)

    def cut(connection: Connection) -> None:
        use(connection)
        connection.rollback()
        wire.cut()

    pings = dict.fromkeys(("database_pool_pre_ping", "database_async_pool_pre_ping"), True)
    before = wire.connections
    await driver.run(_settings(wire, worker_database, **pings), cut, use)
    assert wire.connections >= before + 2


async def test_who_is_cancelled_meanwhile_is_not_held(
    wire: Wire, worker_database: ConnectionParameters
) -> None:
    """A request's own time limit (`/readyz`) ends its wait for a silent server."""
    engine = build_async_engine(
        _settings(wire, worker_database, database_statement_timeout_ms=60_000)
    )
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        wire.cut()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.execute(text("SELECT 1")), 0.1)
        assert connection.invalidated
    await engine.dispose()


async def test_a_server_that_is_only_slow_is_waited_for(
    driver: Driver, wire: Wire, worker_database: ConnectionParameters
) -> None:
    """Without a statement_timeout nobody has said how long is too long."""
    settings = _settings(wire, worker_database, database_statement_timeout_ms=0)
    await driver.run(settings, lambda c: c.execute(text("SELECT pg_sleep(0.5)")).all())


def test_work_that_may_take_long_lifts_the_limits_for_itself(
    wire: Wire, worker_database: ConnectionParameters
) -> None:
    """Recomputing the books outlasts all limits; the connection's next user has them again."""
    engine = build_engine(_settings(wire, worker_database))
    with Session(engine) as session:
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 50"))
        silent_servers.lift_time_limits(session)
        session.execute(text("SELECT pg_sleep(0.6)"))
        time.sleep(0.2)  # at work on what it has read
        session.execute(text("SELECT 1"))
    with Session(engine) as session:
        session.execute(text("SET LOCAL statement_timeout = 0"))
        with pytest.raises(RetryableDatabaseError, match="lost"):
            session.execute(text("SELECT pg_sleep(60)"))
    engine.dispose()
