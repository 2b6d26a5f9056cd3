"""A connection sees the group that is asked for, and no wrong route reads or writes anything."""

import asyncio
import uuid
from collections.abc import Callable, Mapping
from functools import partial

import pytest
from sqlalchemy import Connection, TextClause, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from src.common.accounts.queries import get_user
from src.common.async_database import run_in_async_database_transaction
from src.common.credits.operations import execute
from src.common.credits.queries import balance
from src.common.database import SessionLocal, get_engine, run_in_database_transaction
from src.common.exceptions import NotFound
from src.common.models import CreditEntry, StripeEvent, User
from src.common.postgres.routes import (
    NotRouted,
    WrongShard,
    current_route,
    routed_to_schema,
    unrouted,
)
from src.common.routing import async_routed_to, routed_to
from src.common.settings import get_settings
from src.common.sharding import directory
from src.local_postgres import ConnectionParameters
from tests.credits.books import check_books, spend
from tests.sharding.conftest import GROUPS
from tests.sharding.people import balance_of, user_of

ROUNDS = 8
"""More than it takes psycopg to prepare a statement, and PostgreSQL to keep a plan."""
ONE_CONNECTION = {
    "DATABASE_POOL_SIZE": "1",
    "DATABASE_MAX_OVERFLOW": "0",
    "DATABASE_ASYNC_POOL_SIZE": "1",
    "DATABASE_ASYNC_MAX_OVERFLOW": "0",
}
POOLERS = pytest.mark.parametrize("pooler", ["none", "prepared", "transaction"])


def configure(patch: pytest.MonkeyPatch, **changed: str) -> None:
    """Change settings of the test's database."""
    for name, value in changed.items():
        patch.setenv(name, value)
    get_settings.cache_clear()


def run_statement(statement: TextClause, values: Mapping[str, object]) -> None:
    """As somebody who writes past the ORM, without a route."""
    with get_engine().begin() as connection:
        connection.execute(statement, values)


def read_and_spend(user_id: uuid.UUID, number: int) -> Callable[[Session], tuple[str, int, int]]:
    """The user's type, whose PostgreSQL type is everybody's, and what is left after a spend."""

    def work(session: Session) -> tuple[str, int, int]:
        user = get_user(session, user_id)
        user.user_type = "member" if number % 2 else "guest"
        session.flush()
        [result] = execute(session, [spend(user_id, 1, key=f"spend-{number}")])
        users = session.scalar(select(func.count()).select_from(User)) or 0
        return user.user_type, result.balance, users

    return work


@POOLERS
def test_one_connection_serves_all_groups_by_turns(
    groups: ConnectionParameters, monkeypatch: pytest.MonkeyPatch, pooler: str
) -> None:
    """What was prepared for one group works on the next one's rows, never on the last one's."""
    assert groups
    people = [user_of(group, 100) for group in GROUPS]
    configure(monkeypatch, DATABASE_POOLER=pooler, **ONE_CONNECTION)
    for number in range(ROUNDS):
        for user_id in people:
            with routed_to(user_id):
                found = run_in_database_transaction(read_and_spend(user_id, number))
            assert found == ("member" if number % 2 else "guest", 99 - number, 1)
    assert [balance_of(user_id) for user_id in people] == [100 - ROUNDS] * len(GROUPS)


@POOLERS
async def test_one_async_connection_serves_all_groups_by_turns(
    groups: ConnectionParameters, monkeypatch: pytest.MonkeyPatch, pooler: str
) -> None:
    """As the sync driver."""
    assert groups
    people = [await asyncio.to_thread(user_of, group, 100) for group in GROUPS]
    configure(monkeypatch, DATABASE_POOLER=pooler, **ONE_CONNECTION)
    for number in range(ROUNDS):
        for user_id in people:
            async with async_routed_to(user_id):
                found = await run_in_async_database_transaction(read_and_spend(user_id, number))
            assert found == ("member" if number % 2 else "guest", 99 - number, 1)


async def test_tasks_side_by_side_have_routes_of_their_own(groups: ConnectionParameters) -> None:
    """What one task is routed to, another one is not."""
    assert groups
    people = [await asyncio.to_thread(user_of, group, 100) for group in GROUPS]

    async def use(user_id: uuid.UUID) -> list[int]:
        left: list[int] = []
        for number in range(ROUNDS):
            async with async_routed_to(user_id):
                found = await run_in_async_database_transaction(read_and_spend(user_id, number))
            left.append(found[1])
        return left

    found = await asyncio.gather(*map(use, people))
    assert found == [[99 - number for number in range(ROUNDS)]] * len(GROUPS)


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan", "auto"])
def test_a_plan_is_of_the_group_that_is_seen(groups: ConnectionParameters, mode: str) -> None:
    """PostgreSQL plans a prepared statement anew for another search_path, a kept plan too."""
    assert groups
    for number, group in enumerate(GROUPS):
        for _ in range(number):
            user_of(group)
    with get_engine().connect() as connection:
        connection.exec_driver_sql(f"SET plan_cache_mode = {mode}")
        connection.exec_driver_sql(
            "SET search_path = g0001, public; PREPARE counting (text) AS"
            " SELECT count(*) FROM users WHERE email <> $1"
        )
        for _ in range(ROUNDS):
            for number, group in enumerate(GROUPS):
                connection.exec_driver_sql(f"SET search_path = {group}, public")
                counted = connection.exec_driver_sql("EXECUTE counting ('nobody')").scalar_one()
                assert counted == number
        connection.invalidate()


def test_a_user_of_another_group_is_refused(groups: ConnectionParameters) -> None:
    """Reading, spending and changing say WRONG_SHARD, and nothing of it happened anywhere."""
    assert groups
    here, elsewhere = user_of("g0001", 50), user_of("g0002", 50)
    attempts: list[Callable[[Session], object]] = [
        lambda session: get_user(session, elsewhere),
        lambda session: balance(session, elsewhere),
        lambda session: execute(session, [spend(elsewhere, 5)]),
        lambda session: execute(session, [spend(here, 5), spend(elsewhere, 5)]),
    ]
    for attempt in attempts:
        with routed_to(here), pytest.raises(WrongShard) as refused:
            run_in_database_transaction(attempt)
        assert refused.value.error_type == "WRONG_SHARD"
    assert (balance_of(here), balance_of(elsewhere)) == (50, 50)


def test_somebody_whom_nobody_knows_is_not_found(groups: ConnectionParameters) -> None:
    """An unknown user is no user of another group."""
    assert groups
    nobody = uuid.uuid4()
    with routed_to_schema("g0001"), pytest.raises(NotFound, match="User not found"):
        run_in_database_transaction(lambda session: get_user(session, nobody))
    with pytest.raises(NotFound, match="User not found"), routed_to(nobody):
        pass


def test_a_row_for_a_user_of_another_group_is_refused_by_the_database(
    groups: ConnectionParameters,
) -> None:
    """Whoever writes past our code meets the reference to the directory, or the home's CHECK."""
    assert groups
    elsewhere = user_of("g0002")
    copied = (
        "INSERT INTO g0001.users (user_id, email, password_hash{column})"
        " VALUES (:user_id, 'copy@example.com', 'x'{value})"
    )
    for column, value in (("", ""), (", home", ", 'g0002'")):
        statement = text(copied.format(column=column, value=value))
        written = partial(run_statement, statement, {"user_id": elsewhere})
        with pytest.raises(IntegrityError):
            written()
    with routed_to_schema("g0001"), SessionLocal() as session:
        assert session.scalar(select(func.count()).select_from(User)) == 0


def test_without_a_route_tables_of_users_are_refused(groups: ConnectionParameters) -> None:
    """The error is ours and says what to do; what is everybody's is there with or without one."""
    assert groups
    with SessionLocal() as session, pytest.raises(NotRouted, match="routed_to"):
        session.scalars(select(CreditEntry)).all()
    for route in (None, "g0003"):
        with routed_to_schema(route), SessionLocal() as session:
            assert session.scalars(select(StripeEvent)).all() == []


async def test_without_a_route_the_async_driver_refuses_too(groups: ConnectionParameters) -> None:
    """As the sync driver."""
    assert groups

    def read(session: Session) -> None:
        session.scalars(select(User)).all()

    with pytest.raises(NotRouted):
        await run_in_async_database_transaction(read)


def test_a_session_stays_with_its_group(groups: ConnectionParameters) -> None:
    """What it loaded of one group would be taken for the other's."""
    assert groups
    with SessionLocal() as session:
        with routed_to_schema("g0001"):
            session.scalars(select(User)).all()
            session.commit()
        with routed_to_schema("g0002"), pytest.raises(WrongShard, match="take a new one"):
            session.scalars(select(User)).all()


def test_routes_end_with_their_blocks(groups: ConnectionParameters) -> None:
    """Also by an error, and inner ones give way to outer ones."""
    assert groups
    seen = text("SELECT current_setting('search_path')")

    def path() -> str:
        with SessionLocal() as session:
            found: str = session.scalar(seen)
            return found

    with routed_to_schema("g0001"):
        with pytest.raises(ZeroDivisionError), routed_to_schema("g0002"):
            _ = 1 / 0
        assert path() == "g0001, public"
        with unrouted():
            assert path() == "public"
    assert path() == "public"


def test_books_of_every_group_balance(groups: ConnectionParameters) -> None:
    """The ledger's own checks hold in a group as they do without groups, its chain included."""
    assert groups
    for group in GROUPS[:2]:
        user_id = user_of(group, 40)
        with routed_to(user_id):
            run_in_database_transaction(partial(execute, commands=[spend(user_id, 7)]))
            run_in_database_transaction(check_books)


def fail_once(monkeypatch: pytest.MonkeyPatch) -> list[uuid.UUID]:
    """Have the first look-up end with a serialization failure; who was asked for."""
    asked: list[uuid.UUID] = []
    look = directory.group_of

    def look_again(connection: Connection, user_id: uuid.UUID) -> str | None:
        asked.append(user_id)
        if len(asked) == 1:
            raise_ = "DO $$ BEGIN RAISE EXCEPTION 'passing' USING ERRCODE = '40001'; END $$"
            connection.execute(text(raise_))
        return look(connection, user_id)

    monkeypatch.setattr(directory, "group_of", look_again)
    return asked


async def test_a_look_up_is_tried_again_after_a_passing_condition(
    groups: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever routes hears nothing of it."""
    assert groups
    ada, bob = user_of("g0002"), user_of("g0003")
    asked = fail_once(monkeypatch)
    with routed_to(ada):
        assert current_route() == "g0002"
    assert asked == [ada, ada]
    asked.clear()
    async with async_routed_to(bob):
        assert current_route() == "g0003"
    assert asked == [bob, bob]
