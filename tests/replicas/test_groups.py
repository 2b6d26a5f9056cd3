"""Where groups of users have schemas, a replica answers of the group that is asked, as ever."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from alembic import command

from src.common.async_replicas import AsyncReader
from src.common.credits import queries
from src.common.database import dispose_db
from src.common.exceptions import NotFound
from src.common.postgres.lagging_reads import Answered, MayLag, PrimaryBecause, Source
from src.common.postgres.migrations import alembic_config
from src.common.postgres.routes import NotRouted, WrongShard, routed_to_schema
from src.common.replicas import Reader, dispose_replicas
from src.common.routing import all_groups, routed_to
from src.common.settings import get_settings
from src.common.sharding.creation import create_groups
from src.common.sharding.listeners import keep_directory
from tests.cli.conftest import RunCommand
from tests.fixtures.api import Api, make_api_key
from tests.fixtures.databases import forget_engines, point_to
from tests.fixtures.standbys import Pair, connected
from tests.replicas.conftest import give
from tests.sharding.conftest import nothing_listens
from tests.sharding.people import user_of

__all__ = ["nothing_listens"]
pytestmark = pytest.mark.xdist_group("pair of servers: groups")
NAME = "divided"
Read = Callable[..., Awaitable[Answered[Any]]]


@pytest_asyncio.fixture
async def divided(replicated: Pair, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Pair]:
    """The pair, with a database of two groups on both; the settings name it."""
    with connected(replicated.primary) as admin:
        made = admin.execute("SELECT FROM pg_database WHERE datname = %s", [NAME]).fetchone()
    if made is None:
        with connected(replace(replicated.primary, database="postgres")) as admin:
            admin.execute(f"CREATE DATABASE {NAME} TEMPLATE {replicated.primary.database}".encode())
    monkeypatch.setenv("SHARDING", "schemas")
    await forget_engines()
    point_to(monkeypatch, replace(replicated.primary, database=NAME))
    keep_directory(get_settings())  # an engine of the same settings was told so once
    if made is None:
        command.upgrade(alembic_config(), "head")
        list(create_groups(get_settings(), 2))
    replicated.catch_up()
    yield replicated
    dispose_replicas()
    dispose_db()


@pytest.fixture(params=["psycopg", "asyncpg"])
def read(request: pytest.FixtureRequest) -> Read:
    """Ask as sync callers do and as async ones do, from the replica if it can."""

    async def ask(reading: MayLag[..., Any], *args: Any) -> Answered[Any]:
        if request.param == "asyncpg":
            return await AsyncReader(Source.REPLICA).read(reading, *args)
        return await asyncio.to_thread(Reader(Source.REPLICA).read, reading, *args)

    return ask


async def test_a_reading_sees_its_users_group_at_the_replica(divided: Pair, read: Read) -> None:
    """By turns, on the same pool; a user is in no other group there either."""
    users = {group: user_of(group, number) for number, group in enumerate(("g0001", "g0002"), 7)}
    divided.catch_up()
    for _ in range(3):
        for (group, user_id), balance in zip(users.items(), (7, 8), strict=True):
            with routed_to_schema(group):
                found = await read(queries.explain, user_id)
            assert (found.value.now.balance, found.read_from.source) == (balance, Source.REPLICA)
    with routed_to_schema("g0001"), pytest.raises(WrongShard):
        await read(queries.explain, users["g0002"])
    with routed_to_schema("g0001"), pytest.raises(NotFound):
        await read(queries.explain, uuid.uuid4())
    with pytest.raises(NotRouted):
        await read(queries.explain, users["g0002"])


async def test_what_the_replica_has_not_yet_the_primary_answers(divided: Pair, read: Read) -> None:
    """A newcomer, and a whole group that was made since."""
    with divided.paused():
        newcomer = user_of("g0001", 5)
        [made] = create_groups(get_settings(), 1)
        first = user_of(made, 6)
        assert made in all_groups()
        for user_id, balance in ((newcomer, 5), (first, 6)):
            with routed_to(user_id):
                found = await read(queries.explain, user_id)
            assert (found.value.now.balance, found.read_from.source) == (balance, Source.PRIMARY)
            assert found.read_from.because is PrimaryBecause.NOT_FOUND


async def test_over_http_whoever_has_written_sees_it(divided: Pair, served: Api) -> None:
    """The replica answers of the group that the address names; who has seen more, the primary."""
    users = {group: user_of(group, 7) for group in ("g0001", "g0002")}
    token = await make_api_key("credits:read")
    divided.catch_up()
    with divided.paused():
        for user_id in users.values():
            with routed_to(user_id):
                give(user_id, 1)
            entries = f"/user/{user_id}/credits/entries"
            for after, told in ((None, ("replica", 1)), ("2", ("primary", 2))):
                headers = {} if after is None else {"X-Read-After": after}
                answer = await served.get(
                    entries, token, params={"read": "replica"}, headers=headers
                )
                assert answer.status_code == 200, answer.text
                assert (answer.headers["X-Read-From"], len(answer.json()["items"])) == told


def test_commands_ask_the_replica_of_all_groups(divided: Pair, run_command: RunCommand) -> None:
    """Books of every group are verified there, lists of all of them are made there."""
    users = {str(user_of(group, 3)) for group in ("g0001", "g0002")}
    divided.catch_up()
    verified = run_command("verify", "--from-replica", "--json")
    assert verified.exit_code == 0, verified.err
    assert verified.json["read_from"]["source"] == "replica", verified.json
    assert verified.json["users"] >= len(users)
