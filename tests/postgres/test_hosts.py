"""Of several hosts the first that will do is used, over either driver, and a frozen one is passed.

Nothing here is measured in time: a host that is waited for without a limit hangs the test.
"""

import os
import socket
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from src.common.postgres.errors import NOT_REACHABLE, RetryableDatabaseError
from src.common.postgres.hosts import HostOrder
from src.common.settings import Settings
from src.local_postgres import ConnectionParameters, free_port
from tests.postgres.drivers import (
    Driver,
    answering_server,
    protocol_message,
    read_only,
    refusing_server,
    settings_for,
)

LOOPBACK = "127.0.0.1"
STARTING = ("57P03", "the database system is starting up")
WRONG_PASSWORD = ("28P01", 'password authentication failed for user "postgres"')


def parameter(name: str, value: str) -> bytes:
    """What a server tells of a setting of its own."""
    return protocol_message(b"S", f"{name}\0{value}\0".encode())


STANDBY = b"".join(
    [
        protocol_message(b"R", bytes(4)),  # welcome
        parameter("server_version", "18.0"),
        parameter("client_encoding", "UTF8"),
        parameter("in_hot_standby", "on"),
        protocol_message(b"K", bytes(8)),
        protocol_message(b"Z", b"I"),  # ready
    ]
)


@contextmanager
def frozen() -> Generator[socket.socket]:
    """A host that takes connections, as its system does for it, and answers nothing."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        listener.setblocking(False)
        yield listener


@contextmanager
def dropping() -> Generator[socket.socket]:
    """A host whose queue of callers is full: the system drops what others send."""
    with socket.create_server((LOOPBACK, 0), backlog=0) as listener, ExitStack() as stack:
        while True:
            caller = stack.enter_context(socket.socket())
            caller.settimeout(0.1)
            try:
                caller.connect(listener.getsockname())
            except TimeoutError:
                break
        yield listener


def port_of(listener: socket.socket) -> int:
    """Where it listens."""
    return int(listener.getsockname()[1])


def settings_of(ports: list[int], database: ConnectionParameters, **others: object) -> Settings:
    """The settings that name this machine's ports as so many hosts."""
    named: dict[str, object] = {
        "database_host": ",".join([LOOPBACK] * len(ports)),
        "database_port": ",".join(map(str, ports)),
        "database_connect_timeout_seconds": 1,
    }
    return settings_for(database, **(named | others))


def name_of_database(connection: Connection) -> str:
    """Which database answers."""
    return str(connection.execute(text("SELECT current_database()")).scalar_one())


async def test_hosts_that_will_not_do_are_passed_each_within_its_own_time(
    driver: Driver, worker_database: ConnectionParameters
) -> None:
    """Frozen, unreachable, dead, starting, a standby: with one time for all none was passed."""
    with (
        frozen() as silent,
        dropping() as unreachable,
        refusing_server(*STARTING) as starting,
        answering_server(STANDBY) as standby,
    ):
        ports = [port_of(silent), port_of(unreachable), free_port(), starting, standby]
        settings = settings_of([*ports, worker_database.port], worker_database)
        assert await driver.run(settings, name_of_database) == [worker_database.database]


async def test_a_frozen_host_costs_its_time_once(
    driver: Driver, worker_database: ConnectionParameters
) -> None:
    """The host that served is the first to be asked for the next connection."""

    def open_anew(connection: Connection) -> None:
        connection.invalidate()

    with frozen() as silent:
        settings = settings_of([port_of(silent), worker_database.port], worker_database)
        await driver.run(settings, open_anew, open_anew, open_anew)
        callers = 0
        with suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                callers += 1
    assert callers == 1


@pytest.mark.parametrize("others", ["a dead host", "a host that knows us not"])
async def test_where_no_host_is_the_primary_one_is_to_try_later(
    driver: Driver, worker_database: ConnectionParameters, others: str
) -> None:
    """In the middle of a failover: whatever else the other hosts say, it passes."""
    with answering_server(STANDBY) as standby, refusing_server(*WRONG_PASSWORD) as stranger:
        other = free_port() if others == "a dead host" else stranger
        for ports in ([standby, other], [other, standby]):
            with pytest.raises(RetryableDatabaseError) as caught:
                await driver.run(settings_of(ports, worker_database), name_of_database)
            assert (caught.value.sqlstate, caught.value.reason) == ("25006", "server read-only")


async def test_a_host_that_only_reads_is_passed_where_settings_say_so(
    driver: Driver, worker_database: ConnectionParameters
) -> None:
    """`read-write` looks at what a database's owner has set; `any` takes the first."""
    ports = [worker_database.port] * 2
    with read_only(worker_database):
        chosen = settings_of(ports, worker_database, database_target_session_attrs="read-write")
        with pytest.raises(RetryableDatabaseError, match="read-only"):
            await driver.run(chosen, name_of_database)
        whichever = settings_of(ports, worker_database, database_target_session_attrs="any")
        assert await driver.run(whichever, name_of_database) == [worker_database.database]


async def test_what_passes_is_told_before_what_does_not(
    driver: Driver, worker_database: ConnectionParameters
) -> None:
    """A host that starts up is worth waiting for, whatever the last one says."""
    with refusing_server(*STARTING) as starting, refusing_server(*WRONG_PASSWORD) as stranger:
        for ports in ([starting, stranger, free_port()], [stranger, starting]):
            with pytest.raises(RetryableDatabaseError) as caught:
                await driver.run(settings_of(ports, worker_database), name_of_database)
            assert caught.value.sqlstate == "57P03"
        refused = settings_of([stranger, free_port()], worker_database)
        with pytest.raises(DBAPIError) as caught_last:
            await driver.run(refused, name_of_database)
        assert not isinstance(caught_last.value, RetryableDatabaseError)


async def test_where_no_host_answers_none_is_reachable(
    driver: Driver, worker_database: ConnectionParameters
) -> None:
    """As of one host."""
    with frozen() as silent:
        settings = settings_of([free_port(), port_of(silent)], worker_database)
        with pytest.raises(RetryableDatabaseError) as caught:
            await driver.run(settings, name_of_database)
    assert caught.value.reason == NOT_REACHABLE


async def test_a_host_that_is_gone_is_noticed_by_the_system(
    driver: Driver, worker_database: ConnectionParameters
) -> None:
    """Both drivers' sockets have the same limits, also where nothing is sent."""

    def limits(connection: Connection) -> list[int]:
        raw = connection.connection.driver_connection
        assert raw is not None
        if driver.name == "psycopg":
            descriptor = raw.pgconn.socket
        else:
            descriptor = raw._transport.get_extra_info("socket").fileno()  # noqa: SLF001  no public way
        with socket.socket(fileno=os.dup(descriptor)) as opened:
            names = ("TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
            options = [(socket.IPPROTO_TCP, getattr(socket, name)) for name in names]
            return [
                opened.getsockopt(*option)
                for option in [(socket.SOL_SOCKET, socket.SO_KEEPALIVE), *options]
            ]

    settings = settings_for(worker_database, database_tcp_user_timeout_ms=7_000)
    assert await driver.run(settings, limits) == [[1, 7_000, 30, 10, 3]]


def test_the_host_that_served_last_comes_first() -> None:
    """The others keep their order; the settings' is not lost."""
    order = HostOrder()
    written = {"host": "a,b,c", "port": "1,2,3"}
    assert order.for_libpq(written) == written
    order.note("b", 2)
    assert order.for_libpq(written) == {"host": "b,a,c", "port": "2,1,3"}
    assert order.arranged(["a", "b"], [1, 2]) == [("b", 2), ("a", 1)]
    order.note("c", 3)
    assert order.for_libpq(written) == {"host": "c,a,b", "port": "3,1,2"}
    assert order.for_libpq({"host": "a", "port": 1}) == {"host": "a", "port": 1}
