"""A server whose synchronous standby never answers, and what becomes of those who wait for it."""

import secrets
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from src.common import async_database, database
from src.common.postgres import confirmed_commits, silent_servers
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters, free_port, running_server
from tests.fixtures.databases import environment_of
from tests.fixtures.folders import copy_data, folder_for_data
from tests.postgres.drivers import until

NOBODY_WAITS = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')"
LITTLE_PATIENCE = {
    "DATABASE_STATEMENT_TIMEOUT_MS": "2000",
    "DATABASE_LOCK_TIMEOUT_MS": "2000",
    "DATABASE_POOL_TIMEOUT_SECONDS": "60",
    "DATABASE_CONNECT_TIMEOUT_SECONDS": "60",
}
"""How long whoever waits for the standby waits: what is not answered then, never is."""


@dataclass(frozen=True)
class Primary:
    """A server with synchronous standbys."""

    connection: ConnectionParameters

    def connect(self, database: str = "postgres", options: str = "") -> psycopg.Connection:
        """A superuser's connection; each statement commits."""
        at = self.connection
        return psycopg.connect(
            host=at.host,
            port=at.port,
            user=at.user,
            password=at.password,
            dbname=database,
            autocommit=True,
            options=options,
        )

    def admin(self) -> psycopg.Connection:
        """One that waits for no standby."""
        return self.connect(options="-c synchronous_commit=local")

    def change(self, statement: LiteralString, *names: str) -> None:
        """Run one statement with identifiers filled in."""
        with self.admin() as admin:
            admin.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def set_synchronous_commit(self, value: LiteralString) -> None:
        """Change the setting for everybody, those of open connections too."""
        self.change("ALTER SYSTEM SET synchronous_commit = " + value)
        self.change("SELECT pg_reload_conf()")
        while True:  # whoever was connected before is told before a new connection is
            with self.connect() as connection:
                if connection.execute("SHOW synchronous_commit").fetchone() == (value,):
                    return

    def end_who_waits(self) -> None:
        """As a restart does: what they have committed is on this server alone, for all to see."""
        with self.admin() as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE wait_event = 'SyncRep'"
            )
            until(admin, NOBODY_WAITS)


@pytest.fixture(scope="module")
def primary(migrated_data: Path) -> Generator[Primary]:
    """A server that waits for `nobody` once `synchronous_commit` says so; that is off at first."""
    settings = {
        "synchronous_standby_names": "nobody",
        "synchronous_commit": "local",
        "max_connections": "300",
        "fsync": "off",  # nobody cuts the power
    }
    with folder_for_data() as parent:
        copy_data(migrated_data, parent / "data")
        with running_server(parent / "data", port=free_port(), settings=settings) as running:
            yield Primary(running.connection)


@pytest_asyncio.fixture
async def impatient(
    primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[ConnectionParameters]:
    """A database of this test's own there; who waits there for a standby gives up soon."""
    name = f"t_{secrets.token_hex(4)}"
    primary.change("CREATE DATABASE {} TEMPLATE {}", name, primary.connection.database)
    connection = replace(primary.connection, database=name)
    for variable, value in (environment_of(connection) | LITTLE_PATIENCE).items():
        monkeypatch.setenv(variable, value)
    get_settings.cache_clear()
    monkeypatch.setattr(silent_servers, "SILENCE_SECONDS", 0.0)
    monkeypatch.setattr(confirmed_commits, "LOOK_SECONDS", -1.0)
    yield connection
    primary.set_synchronous_commit("local")
    primary.end_who_waits()
    database.dispose_db()
    await async_database.dispose_async_db()
    monkeypatch.undo()
    get_settings.cache_clear()
    primary.change("DROP DATABASE {} WITH (FORCE)", name)
