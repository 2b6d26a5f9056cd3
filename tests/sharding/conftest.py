"""Databases whose users are in eight groups: one template, a clone for each test."""

import hashlib
import re
import secrets
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio
from alembic import command
from sqlalchemy import event
from sqlalchemy.orm import Session

from src.common.postgres import routes
from src.common.postgres.migrations import alembic_config
from src.common.settings import get_settings
from src.common.sharding import listeners
from src.common.sharding.creation import create_groups
from src.local_postgres import ConnectionParameters
from tests.fixtures.api import StartApi, starting
from tests.fixtures.databases import Server, forget_engines, point_to
from tests.sharding.citus_server import DSN, CitusServer

GROUPS = [f"g{number:04}" for number in range(1, 9)]
TEMPLATE = "flashslides_groups_template"
LOCK_OF_TEMPLATE = 4_712
IN_SCHEMAS = {"SHARDING": "schemas"}
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Template:
    """A database with eight groups and nobody in them, and the server that clones it."""

    name: str
    server: Server | CitusServer

    def clone(self, name: str) -> ConnectionParameters:
        """A database of the same."""
        if isinstance(self.server, CitusServer):
            self.server.clone(self.name, name)
        else:
            statement = "CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY"
            self.server.execute(statement, name, self.name)
        return replace(self.server.connection, database=name)


@pytest.fixture(scope="session")
def groups_template(request: pytest.FixtureRequest) -> Template:
    """On Citus where `CITUS_DSN` names a database, or else on the run's server."""
    if DSN is not None:
        return on_citus(CitusServer.named(DSN))
    server: Server = request.getfixturevalue("server")
    with server.admin() as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [LOCK_OF_TEMPLATE])
        if connection.execute(
            "SELECT 1 FROM pg_database WHERE datname = %s", [TEMPLATE]
        ).fetchone():
            return Template(TEMPLATE, server)
        building = f"{TEMPLATE}_building"
        server.drop(building)
        make_groups(server.empty(building))
        server.execute("ALTER DATABASE {} RENAME TO {}", building, TEMPLATE)
    return Template(TEMPLATE, server)


def on_citus(server: CitusServer) -> Template:
    """Kept from run to run, and made anew after a change of what makes it: it takes minutes."""
    folders = (ROOT / "alembic" / "versions", ROOT / "src" / "common")
    files = sorted(file for folder in folders for file in folder.rglob("*.py"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files if is_of_schema(file)))
    name = f"{TEMPLATE}_{digest.hexdigest()[:12]}"
    with server.alone(LOCK_OF_TEMPLATE):
        if not server.has(name):
            building = f"{TEMPLATE}_building"
            server.drop(building)
            make_groups(server.empty(building), **of_citus(server))
            server.freeze(building)
            server.rename(building, name)
    return Template(name, server)


def of_citus(server: CitusServer) -> dict[str, str]:
    """What a service over Citus is told."""
    host, port = server.connection.host, str(server.connection.port)
    return {
        "DATABASE_LEDGER_TRIGGERS": "commit",
        "DATABASE_POOLER": "prepared",
        "DATABASE_DIRECT_HOST": host,
        "DATABASE_DIRECT_PORT": port,
    }


def is_of_schema(file: Path) -> bool:
    """Whether it says what is in a database of groups."""
    return file.parent.name in {"versions", "models"}


def make_groups(connection: ConnectionParameters, **variables: str) -> None:
    """Make eight groups in an empty database."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (IN_SCHEMAS | variables).items():
            patch.setenv(name, value)
        point_to(patch, connection)
        command.upgrade(alembic_config(), "head")
        assert list(create_groups(get_settings(), len(GROUPS))) == GROUPS
    get_settings.cache_clear()


@pytest_asyncio.fixture
async def groups(
    groups_template: Template,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncGenerator[ConnectionParameters]:
    """A database of this test's own with eight groups; the process's settings name it."""
    test = cast("pytest.Item", request.node)
    name = f"g_{re.sub(r'[^a-z]+', '_', test.name.lower())[:30]}_{secrets.token_hex(4)}"
    connection = groups_template.clone(name)
    await forget_engines()
    server = groups_template.server
    of_server = of_citus(server) if isinstance(server, CitusServer) else {}
    for variable, value in (IN_SCHEMAS | of_server).items():
        monkeypatch.setenv(variable, value)
    point_to(monkeypatch, connection)
    yield connection
    await forget_engines()
    monkeypatch.undo()
    get_settings.cache_clear()
    server.drop(name)


@pytest.fixture(autouse=True)
def nothing_listens() -> Generator[None]:
    """Other tests of this process are about users in no groups, and may count who listens."""
    yield
    for model, name, listener in listeners.LISTENERS:
        if event.contains(model, name, listener):
            event.remove(model, name, listener)
    if event.contains(Session, "after_begin", routes.refuse_change_of_route):
        event.remove(Session, "after_begin", routes.refuse_change_of_route)


@pytest_asyncio.fixture
async def start_service(
    groups: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[StartApi]:
    """Start the API on a database of groups; keyword arguments are environment variables."""
    assert groups
    async with starting(monkeypatch) as start:
        yield start
