"""The same work over either driver: psycopg in a thread of its own, asyncpg in the event loop."""

import asyncio
import socket
import struct
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

from src.common.async_database import get_async_engine, run_in_async_database_transaction
from src.common.database import get_engine, run_in_database_transaction
from src.common.postgres.engines import build_async_engine, build_engine
from src.common.settings import Settings, load_settings
from src.local_postgres import ConnectionParameters

T = TypeVar("T")


class Driver(ABC):
    """What a test does with a driver; `work` is written once, for the sync API."""

    name: str

    @abstractmethod
    async def run(self, settings: Settings, *works: Callable[[Connection], T]) -> list[T]:
        """Build an engine from the settings and run each work in a connection out of its pool."""

    @abstractmethod
    async def transact(self, work: Callable[[Session], T]) -> T:
        """Run `work` as the application does: committed, retried where that helps."""

    @abstractmethod
    def engine(self) -> Engine:
        """The process's own engine for this driver; the sync inside of an async one."""


class Psycopg(Driver):
    """The sync side; its blocking calls run in threads."""

    name = "psycopg"

    async def run(self, settings: Settings, *works: Callable[[Connection], T]) -> list[T]:
        """Run the works in one thread."""
        return await asyncio.to_thread(self._run, settings, works)

    @staticmethod
    def _run(settings: Settings, works: tuple[Callable[[Connection], T], ...]) -> list[T]:
        engine = build_engine(settings)
        results: list[T] = []
        try:
            for work in works:
                with engine.connect() as connection:
                    results.append(work(connection))
        finally:
            engine.dispose()
        return results

    async def transact(self, work: Callable[[Session], T]) -> T:
        """Run the work in a thread."""
        return await asyncio.to_thread(run_in_database_transaction, work)

    def engine(self) -> Engine:
        """The sync engine."""
        return get_engine()


class Asyncpg(Driver):
    """The async side; `work` gets the sync connection or session inside."""

    name = "asyncpg"

    async def run(self, settings: Settings, *works: Callable[[Connection], T]) -> list[T]:
        """Run the works in this event loop."""
        engine = build_async_engine(settings)
        results: list[T] = []
        try:
            for work in works:
                async with engine.connect() as connection:
                    results.append(await connection.run_sync(work))
        finally:
            await engine.dispose()
        return results

    async def transact(self, work: Callable[[Session], T]) -> T:
        """Run the work in this event loop."""
        return await run_in_async_database_transaction(work)

    def engine(self) -> Engine:
        """The engine inside the async engine."""
        return get_async_engine().sync_engine


DRIVERS: tuple[Driver, ...] = (Psycopg(), Asyncpg())


def settings_for(database: ConnectionParameters, **others: object) -> Settings:
    """The settings that name this database, with others changed."""
    named: dict[str, object] = {
        "database_host": database.host,
        "database_port": database.port,
        "database_name": database.database,
        "database_user": database.user,
        "database_password": database.password,
    }
    return load_settings(**(named | others))


def show(connection: Connection, *names: str) -> dict[str, str]:
    """What the server says about its own parameters."""
    return {name: str(connection.execute(text(f"SHOW {name}")).scalar_one()) for name in names}


def open_connection(database: ConnectionParameters) -> psycopg.Connection:
    """A connection of the test's own, outside every engine; each statement commits."""
    return psycopg.connect(
        host=database.host,
        port=database.port,
        user=database.user,
        password=database.password,
        dbname=database.database,
        autocommit=True,
    )


@contextmanager
def read_only(database: ConnectionParameters) -> Generator[None]:
    """Whoever connects within the block may only read, as at a standby, and stays so after it."""
    with open_connection(database) as admin:
        setting = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on")
        admin.execute(setting.format(sql.Identifier(database.database)))
        yield
        admin.execute(
            sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(
                sql.Identifier(database.database)
            ),
        )


def terminate(database: ConnectionParameters, pid: int) -> None:
    """End a backend, as an operator or a failover does, and wait until it is gone."""
    with open_connection(database) as admin:
        admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        until(admin, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)", pid)


def until(connection: psycopg.Connection, query: str, *values: object) -> None:
    """Ask until the answer is true; a test that waits in vain is ended by its time limit."""
    while not _is_true(connection, query, values):
        time.sleep(0.005)  # whoever is to make it true needs the processor


def _is_true(connection: psycopg.Connection, query: str, values: tuple[object, ...]) -> bool:
    row = connection.execute(query.encode(), values).fetchone()
    return row is not None and bool(row[0])


@contextmanager
def refusing_server(code: str, message: str) -> Generator[int]:
    """A port where every client is refused as PostgreSQL does it, with this code and sentence."""
    fields = f"SFATAL\0VFATAL\0C{code}\0M{message}\0\0".encode()
    with answering_server(protocol_message(b"E", fields)) as port:
        yield port


def protocol_message(kind: bytes, body: bytes) -> bytes:
    """A message as PostgreSQL sends it."""
    return kind + struct.pack("!i", len(body) + 4) + body


@contextmanager
def answering_server(answer: bytes) -> Generator[int]:
    """A port where every client who introduces itself is answered this, and then left."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer_all, args=(listener, answer))
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _answer_all(listener: socket.socket, answer: bytes) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:  # the test is over
            return
        with client, client.makefile("rb") as received:
            while len(head := received.read(8)) == 8:
                length, request = struct.unpack("!ii", head)
                received.read(length - 8)
                if request not in {80877103, 80877104}:  # asks for TLS or GSSAPI encryption
                    client.sendall(answer)
                    break
                client.sendall(b"N")
