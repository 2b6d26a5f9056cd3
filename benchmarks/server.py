"""A durable PostgreSQL of the benchmark's own, in a folder that goes with it, on loopback only."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import psycopg
from psycopg import sql

from src.common.settings import get_settings
from src.local_postgres import (
    ConnectionParameters,
    RunningServer,
    free_port,
    running_server,
    status,
    stop,
)

SERVER_SETTINGS = {
    # What must hold for the figures to mean anything; read back and printed.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Everything fits into memory, and no checkpoint falls into one contestant's turn.
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    # pgbench with 256 clients, and everybody else's pools beside it.
    "max_connections": "320",
}
SHOWN = (*SERVER_SETTINGS, "data_checksums", "wal_sync_method")
DURABLE = ("fsync", "synchronous_commit", "full_page_writes")
QUICK_SERVER_SETTINGS = SERVER_SETTINGS | {"shared_buffers": "128MB", "max_wal_size": "1GB"}

# The pool as the document has it; nothing of the caller's configuration reaches a figure.
_ENGINE_SETTINGS = {
    "ENV": "local",
    "DATABASE_ASYNC_POOL_SIZE": "20",
    "DATABASE_ASYNC_MAX_OVERFLOW": "10",
    "DATABASE_ASYNC_POOL_PRE_PING": "false",
    "DATABASE_POOLER": "none",
}
_ENDING = (signal.SIGINT, signal.SIGTERM)
_VOLATILE_FILE_SYSTEMS = {"tmpfs", "ramfs"}


class UnusableFolder(Exception):
    """The data would lie where a flush costs nothing; the message says what to do."""


@contextmanager
def _left_in_order() -> Generator[None]:
    """Turn the signals that end a program into an exception, once.

    What the block does then is undisturbed: whoever wrapped the program may pass a signal on again.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        for each in _ENDING:
            signal.signal(each, signal.SIG_IGN)
        # Nothing is printed here: a line that is just being printed must end first.
        sys.exit(128 + number)

    before = {each: signal.signal(each, leave) for each in _ENDING}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def temporary_server(
    folder: Path, server_settings: dict[str, str], report: Callable[[str], None]
) -> Generator[RunningServer]:
    """Start a server on new data below `folder`, and point this process's settings at it.

    However the block ends, by Ctrl-C or SIGTERM too, the server is stopped and its data removed.
    """
    with _left_in_order(), _server_on_new_data(folder, server_settings, report) as server:
        yield server


@contextmanager
def _server_on_new_data(
    folder: Path, server_settings: dict[str, str], report: Callable[[str], None]
) -> Generator[RunningServer]:
    parent = Path(tempfile.mkdtemp(prefix="flashslides-benchmark-", dir=folder))
    parent.chmod(0o755)  # root's server runs under another account
    data = parent / "data"
    try:
        with running_server(
            data, port=free_port(), settings=server_settings, on_progress=report
        ) as server:
            _point_process_to(server.connection)
            try:
                yield server
            except SystemExit:
                report("Stopping the server and removing its data")
                raise
    finally:
        if status(data).running:  # the block failed and left a connection open
            stop(data, force=True)
        shutil.rmtree(parent)


def connect(connection: ConnectionParameters, database: str | None = None) -> psycopg.Connection:
    """Open a connection beside the contestants', each statement its own database transaction."""
    return psycopg.connect(
        host=connection.host,
        port=connection.port,
        user=connection.user,
        password=connection.password,
        dbname=database or connection.database,
        autocommit=True,
    )


def create_database(connection: ConnectionParameters, name: str) -> ConnectionParameters:
    """Make an empty database beside the first, and return how to reach it."""
    with connect(connection) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return replace(connection, database=name)


def delay_flushes(admin: psycopg.Connection, delay_us: int) -> None:
    """Have every flush of the log wait so long first, whoever else is active.

    `commit_delay` with `commit_siblings = 0`: the server sleeps before each flush it does for a
    commit, as a disk would that takes that much longer.
    """
    for name, value in (("commit_delay", delay_us), ("commit_siblings", 0 if delay_us else 5)):
        statement = sql.SQL("ALTER SYSTEM SET {} = {}")
        admin.execute(statement.format(sql.Identifier(name), sql.Literal(value)))
    admin.execute("SELECT pg_reload_conf()")


def shown_settings(connection: ConnectionParameters) -> dict[str, str]:
    """Return what the server itself says of the settings that matter."""
    with connect(connection) as admin:
        rows = admin.execute(
            "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name", [list(SHOWN)]
        ).fetchall()
    return dict(rows)


def file_system_of(folder: Path) -> str:
    """Return the type of the file system a folder lies on, as Linux names it."""
    mounts = [
        line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    ]
    types = {Path(point): type_ for _, point, type_, *_ in mounts}
    resolved = folder.resolve()
    return next(
        (types[place] for place in (resolved, *resolved.parents) if place in types), "unknown"
    )


def refuse_volatile(folder: Path) -> None:
    """Refuse a folder whose file system keeps nothing.

    Raises:
        UnusableFolder: if it lies in memory.
    """
    file_system = file_system_of(folder)
    if file_system in _VOLATILE_FILE_SYSTEMS:
        raise UnusableFolder(
            f"{folder} lies in memory ({file_system}), where a commit costs no flush and no figure "
            "means anything. Name a folder on a disk with --folder."
        )


def _point_process_to(connection: ConnectionParameters) -> None:
    for name in list(os.environ):
        if name.startswith("DATABASE_"):
            del os.environ[name]
    os.environ |= _ENGINE_SETTINGS | {
        "DATABASE_HOST": connection.host,
        "DATABASE_PORT": str(connection.port),
        "DATABASE_NAME": connection.database,
        "DATABASE_USER": connection.user,
        "DATABASE_PASSWORD": connection.password,
    }
    get_settings.cache_clear()
