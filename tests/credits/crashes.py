"""Ways to be interrupted: at a statement, at COMMIT, by a network that swallows its answer."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from typing import Any

from sqlalchemy import Connection, Engine, event

from src.common.database import get_engine, run_in_database_transaction
from src.local_postgres import ConnectionParameters
from tests.cli.processes import wait_until_gone
from tests.credits.workers import Job, point_to


@contextmanager
def interrupted(engine: Engine, number: int, act: Callable[[Connection], None]) -> Generator[None]:
    """Do `act` right before the statement of that number, counting from 1; COMMIT counts too."""
    seen = 0

    def count(connection: Connection) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            act(connection)

    def before_statement(connection: Connection, *_others: Any) -> None:
        count(connection)

    event.listen(engine, "before_cursor_execute", before_statement)
    event.listen(engine, "commit", count)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", before_statement)
        event.remove(engine, "commit", count)


@contextmanager
def dying(engine: Engine, number: int, death: type[BaseException]) -> Generator[None]:
    """Raise `death` before the statement of that number and before every later one."""
    seen = 0

    def count(*_others: Any) -> None:
        nonlocal seen
        seen += 1
        if seen >= number:
            raise death

    event.listen(engine, "before_cursor_execute", count)
    event.listen(engine, "commit", count)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", count)
        event.remove(engine, "commit", count)


@contextmanager
def counting(engine: Engine) -> Generator[Callable[[], int]]:
    """How many statements were sent meanwhile, COMMIT included."""
    seen: list[object] = []

    def before_statement(*_others: Any) -> None:
        seen.append(None)

    event.listen(engine, "before_cursor_execute", before_statement)
    event.listen(engine, "commit", before_statement)
    try:
        yield lambda: len(seen)
    finally:
        event.remove(engine, "before_cursor_execute", before_statement)
        event.remove(engine, "commit", before_statement)


def work_until(environment: Mapping[str, str], job: Job, number: int, pipe: Pipe) -> None:
    """A process's whole life: do the job as far as a statement, say so, and wait to be killed.

    A number beyond the last statement means: after COMMIT was acknowledged.
    """
    point_to(environment)

    def wait(_connection: Connection) -> None:
        pipe.send("at the statement")
        signal.pause()

    with interrupted(get_engine(), number, wait):
        run_in_database_transaction(job)
    pipe.send("committed")
    signal.pause()


@contextmanager
def deaf_proxy(database: ConnectionParameters, deaf_to: bytes = b"COMMIT") -> Generator[int]:
    """A port that leads to the database; the answer to a COMMIT arrives here and goes no further.

    Or the answer to what contains other words. The server has committed by then; the client sees
    its connection end.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads = [threading.Thread(target=_accept_all, args=(listener, database, deaf_to))]
        threads[0].start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        threads[0].join()


def _accept_all(listener: socket.socket, database: ConnectionParameters, deaf_to: bytes) -> None:
    pumps: list[threading.Thread] = []
    while True:
        try:
            client, _ = listener.accept()
        except OSError:  # the test is over
            break
        server = socket.create_connection((database.host, database.port))
        committing = threading.Event()
        pumps += [
            threading.Thread(target=_to_server, args=(client, server, committing, deaf_to)),
            threading.Thread(target=_to_client, args=(client, server, committing)),
        ]
        for pump in pumps[-2:]:
            pump.start()
    for pump in pumps:
        pump.join()


def _to_server(
    client: socket.socket, server: socket.socket, committing: threading.Event, deaf_to: bytes
) -> None:
    while data := _receive(client):
        if deaf_to in data:
            committing.set()
        server.sendall(data)
    _hang_up(server)


def _to_client(client: socket.socket, server: socket.socket, committing: threading.Event) -> None:
    while data := _receive(server):
        if committing.is_set():
            break
        client.sendall(data)
    _hang_up(client)
    _hang_up(server)
    client.close()
    server.close()


def _receive(source: socket.socket) -> bytes:
    try:
        return source.recv(65_536)
    except OSError:  # the other direction has ended
        return b""


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # it has ended by itself
        return


def stop_immediately(postmaster_pid: int) -> None:
    """What `pg_ctl stop -m immediate` does: no checkpoint; recovery at the next start."""
    os.kill(postmaster_pid, signal.SIGQUIT)
    wait_until_gone(postmaster_pid)
