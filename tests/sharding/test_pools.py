"""Pools give a group the connection that sees its tables already, and replace broken ones."""

import asyncio

import pytest
from sqlalchemy import text

from src.common.async_database import run_in_async_database_transaction
from src.common.database import run_in_database_transaction
from src.common.postgres.routes import routed_to_schema
from src.local_postgres import ConnectionParameters
from tests.postgres.drivers import open_connection
from tests.sharding.citus_server import on_one_server
from tests.sharding.conftest import GROUPS
from tests.sharding.test_routing import ONE_CONNECTION, configure

pytestmark = on_one_server
SEEN = text("SELECT pg_backend_pid(), current_setting('search_path')")
Seen = tuple[int, str]


def seen_by(group: str | None) -> Seen:
    """The server's process that serves a group now, and what it sees."""
    with routed_to_schema(group):
        return run_in_database_transaction(lambda session: tuple(session.execute(SEEN).one()))


async def seen_async(group: str | None) -> Seen:
    """As `seen_by`, by the other driver."""
    with routed_to_schema(group):
        return await run_in_async_database_transaction(
            lambda session: tuple(session.execute(SEEN).one())
        )


def path_of(group: str | None) -> str:
    """What a connection of this group sees."""
    return "public" if group is None else f"{group}, public"


def test_each_group_keeps_its_connection(groups: ConnectionParameters) -> None:
    """While the pool has room; what is everybody's has one too."""
    assert groups
    routes = [*GROUPS, None]
    first = [seen_by(each) for each in routes]
    assert len({pid for pid, _ in first}) == len(routes)
    assert [path for _, path in first] == [path_of(each) for each in routes]
    for each, was in reversed([*zip(routes, first, strict=True)]):
        assert seen_by(each) == was


async def test_each_group_keeps_its_async_connection(groups: ConnectionParameters) -> None:
    """As in the sync pool."""
    assert groups
    first = [await seen_async(each) for each in GROUPS]
    assert len({pid for pid, _ in first}) == len(GROUPS)
    for each, was in reversed([*zip(GROUPS, first, strict=True)]):
        assert await seen_async(each) == was


def test_a_full_pool_turns_a_connection_round(
    groups: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is idle for longest, and no more are opened than the pool may have."""
    assert groups
    configure(monkeypatch, **ONE_CONNECTION | {"DATABASE_POOL_SIZE": "2"})
    served = [seen_by(each) for each in [*GROUPS, *GROUPS]]
    assert [path for _, path in served] == [path_of(each) for each in [*GROUPS, *GROUPS]]
    assert len({pid for pid, _ in served}) == 2


def break_all(groups: ConnectionParameters) -> None:
    """As a server that restarts."""
    with open_connection(groups) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def test_broken_connections_are_replaced_before_they_are_given_out(
    groups: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are told of another group meet it first: nobody is told an error."""
    configure(monkeypatch, **ONE_CONNECTION, DATABASE_POOL_PRE_PING="false")
    before = {await asyncio.to_thread(seen_by, "g0001"), await seen_async("g0001")}
    break_all(groups)
    after = {await asyncio.to_thread(seen_by, "g0002"), await seen_async("g0002")}
    assert {path for _, path in after} == {"g0002, public"}
    assert not {pid for pid, _ in before} & {pid for pid, _ in after}
