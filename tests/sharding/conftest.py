"""Databases whose users are in eight groups: one template a run, a clone for each test."""

import re
import secrets
from collections.abc import AsyncGenerator, Generator
from dataclasses import replace
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

GROUPS = [f"g{number:04}" for number in range(1, 9)]
TEMPLATE = "flashslides_groups_template"
LOCK_OF_TEMPLATE = 4_712


@pytest.fixture(scope="session")
def groups_template(server: Server) -> str:
    """The name of a database with eight groups and nobody in them."""
    with server.admin() as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [LOCK_OF_TEMPLATE])
        if connection.execute(
            "SELECT 1 FROM pg_database WHERE datname = %s", [TEMPLATE]
        ).fetchone():
            return TEMPLATE
        building = f"{TEMPLATE}_building"
        server.drop(building)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SHARDING", "schemas")
            point_to(patch, server.empty(building))
            command.upgrade(alembic_config(), "head")
            assert list(create_groups(get_settings(), len(GROUPS))) == GROUPS
        get_settings.cache_clear()
        server.execute("ALTER DATABASE {} RENAME TO {}", building, TEMPLATE)
    return TEMPLATE


@pytest_asyncio.fixture
async def groups(
    server: Server,
    groups_template: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncGenerator[ConnectionParameters]:
    """A database of this test's own with eight groups; the process's settings name it."""
    test = cast("pytest.Item", request.node)
    name = f"g_{re.sub(r'[^a-z]+', '_', test.name.lower())[:30]}_{secrets.token_hex(4)}"
    server.execute("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY", name, groups_template)
    connection = replace(server.connection, database=name)
    await forget_engines()
    monkeypatch.setenv("SHARDING", "schemas")
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
