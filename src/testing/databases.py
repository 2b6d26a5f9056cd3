"""Throw-away databases: one embedded server a test run, a clone of a migrated template each test.

The settings of the process, and with them `SessionLocal` and `get_async_db`, lead to the clone. No
database that somebody configured is ever used: a suite that could reach one would empty it one day.
"""

import os
import secrets
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql

from src.common import database
from src.common.postgres.migrations import upgrade_to_head
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters, free_port, running_server
from src.testing.clock import INSTALL_CLOCK, TEACH_TRIGGERS, use_clock

TEMPLATE = "flashslides_testing_template"
_LOCK_OF_TEMPLATE = 4_713
_SERVER_SETTINGS = {
    "max_connections": "300",
    # What a test leaves behind is thrown away: nothing needs to reach the disk.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


@dataclass(frozen=True)
class Database:
    """A migrated database that only one test uses; commits are real."""

    connection: ConnectionParameters
    """Where it is, and the password: for tools and processes of the test's own."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that lead the library to it; they are set while the test runs."""
        return {
            "DATABASE_HOST": self.connection.host,
            "DATABASE_PORT": str(self.connection.port),
            "DATABASE_NAME": self.connection.database,
            "DATABASE_USER": self.connection.user,
            "DATABASE_PASSWORD": self.connection.password,
        }

    def connect(self) -> psycopg.Connection:
        """A connection past the library, each statement committed by itself."""
        return psycopg.connect(
            host=self.connection.host,
            port=self.connection.port,
            user=self.connection.user,
            password=self.connection.password,
            dbname=self.connection.database,
            autocommit=True,
        )


class Server:
    """The run's PostgreSQL with the template in it."""

    def __init__(self, connection: ConnectionParameters) -> None:
        self._maintenance = Database(replace(connection, database="postgres"))
        self._build_template()

    @contextmanager
    def database(self) -> Generator[Database]:
        """A clone of the template, dropped after the block; the settings lead to it meanwhile."""
        name = f"testing_{secrets.token_hex(8)}"
        self._execute("CREATE DATABASE {} TEMPLATE {}", name, TEMPLATE)
        clone = self._named(name)
        use_clock(clone.connection.database, self._maintenance.connect)
        try:
            with settings_lead_to(clone):
                yield clone
        finally:
            self._execute("DROP DATABASE {} WITH (FORCE)", name)

    def _build_template(self) -> None:
        """By the migrations, once a run; other processes wait for it."""
        with self._maintenance.connect() as connection:
            connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK_OF_TEMPLATE])
            found = connection.execute(
                "SELECT FROM pg_database WHERE datname = %s", [TEMPLATE]
            ).fetchone()
            if found is not None:
                return
            building = self._named(f"{TEMPLATE}_building")
            name = building.connection.database
            self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)
            self._execute("CREATE DATABASE {} TEMPLATE template0", name)
            with building.connect() as inside:
                inside.execute(INSTALL_CLOCK)
            use_clock(name, self._maintenance.connect)
            with settings_lead_to(building):
                upgrade_to_head()
            with building.connect() as inside:
                inside.execute(TEACH_TRIGGERS)
            self._execute("ALTER DATABASE {} RENAME TO {}", name, TEMPLATE)

    def _named(self, name: str) -> Database:
        return Database(replace(self._maintenance.connection, database=name))

    def _execute(self, statement: LiteralString, *names: str) -> None:
        with self._maintenance.connect() as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


@contextmanager
def server(folder: Path) -> Generator[Server]:
    """The server of this folder, started or attached to; the last to leave stops it."""
    with running_server(folder, port=free_port(), settings=_SERVER_SETTINGS) as running:
        yield Server(running.connection)


@contextmanager
def settings_lead_to(target: Database) -> Generator[None]:
    """Have the process's settings name this database within the block."""
    before = {name: os.environ.get(name) for name in target.environment}
    os.environ.update(target.environment)
    get_settings.cache_clear()
    try:
        yield
    finally:
        database.dispose_db()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        get_settings.cache_clear()
