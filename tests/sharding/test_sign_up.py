"""Newcomers go to the open group with the fewest users, and whoever is there stays."""

import asyncio
import datetime as dt
import uuid
from collections import Counter

import pytest
from sqlalchemy import text

from src.common.accounts.operations import create_user
from src.common.database import get_engine, run_in_database_transaction
from src.common.exceptions import SettingsError
from src.common.postgres.routes import current_route
from src.common.routing import async_routed_to_sign_up, routed_to, routed_to_sign_up
from src.common.sharding.groups import Group, Newcomers
from src.local_postgres import ConnectionParameters
from tests.models.examples import a_user
from tests.sharding.conftest import GROUPS
from tests.sharding.people import user_of


def change(statement: str) -> None:
    """Change groups, as an operator would."""
    with get_engine().begin() as connection:
        connection.execute(text(statement))


def sign_up() -> str:
    """The group of a newcomer."""
    with routed_to_sign_up():
        run_in_database_transaction(lambda session: create_user(session, email=a_user().email))
        return str(current_route())


def a_group(schema: str, users: int, counted: dt.datetime | None) -> Group:
    """An open one."""
    return Group(schema, True, users, counted, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))


def test_newcomers_are_spread(groups: ConnectionParameters) -> None:
    """Those of one minute too, whose groups were counted before them."""
    assert groups
    assert Counter(sign_up() for _ in range(3 * len(GROUPS))) == dict.fromkeys(GROUPS, 3)


def test_the_fewest_users_decide(groups: ConnectionParameters) -> None:
    """Groups that have more get nobody until the others have as many."""
    assert groups
    for group in GROUPS[2:]:
        for _ in range(2):
            user_of(group)
    assert Counter(sign_up() for _ in range(4)) == {"g0001": 2, "g0002": 2}


def test_closed_groups_get_nobody(groups: ConnectionParameters) -> None:
    """And where none is open, that is said."""
    assert groups
    change("UPDATE user_groups SET is_open = schema = 'g0007'")
    assert {sign_up() for _ in range(3)} == {"g0007"}
    change("UPDATE user_groups SET is_open = false")
    with pytest.raises(SettingsError, match="no group that takes newcomers"):
        sign_up()


def test_groups_are_counted_once_a_minute(groups: ConnectionParameters) -> None:
    """What was counted less than a minute ago is taken as it is, and later it is counted anew."""
    assert groups
    change("UPDATE user_groups SET users_count = 5 - 5 * (schema = 'g0003')::int,"
           " counted_at = statement_timestamp()")  # fmt: skip
    assert sign_up() == "g0003"
    user_of("g0003")
    change("UPDATE user_groups SET counted_at = statement_timestamp() - interval '61 s'")
    assert sign_up() in {*GROUPS} - {"g0003"}
    with get_engine().connect() as connection:
        counted = connection.execute(text("SELECT schema, users_count FROM user_groups"))
        assert {tuple(row) for row in counted} == {
            (group, 2 if group == "g0003" else 0) for group in GROUPS
        }


def test_who_is_there_keeps_the_group(groups: ConnectionParameters) -> None:
    """A second sign-in leads to where the user is, a first one to where there are few."""
    assert groups
    user_id = user_of("g0008")
    for _ in range(2):
        with routed_to_sign_up(user_id):
            assert current_route() == "g0008"
    with routed_to(user_id):
        assert current_route() == "g0008"
    with routed_to_sign_up(uuid.uuid4()):
        assert current_route() in {*GROUPS} - {"g0008"}


async def test_the_async_way_is_the_same(groups: ConnectionParameters) -> None:
    """Without blocking the event loop."""
    assert groups
    user_id = await asyncio.to_thread(user_of, "g0008")
    async with async_routed_to_sign_up(user_id):
        assert current_route() == "g0008"
    async with async_routed_to_sign_up():
        assert current_route() in {*GROUPS} - {"g0008"}
    assert current_route() is None


def test_whom_a_process_has_sent_counts_until_the_next_count() -> None:
    """Only until then: after it they are among those who were counted."""
    newcomers, noon = Newcomers(), dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
    before = [a_group("g0001", 1, noon), a_group("g0002", 0, noon)]
    chosen = [newcomers.choose(before) for _ in range(3)]
    assert (chosen[0], sorted(chosen)) == ("g0002", ["g0001", "g0002", "g0002"])
    later = noon + dt.timedelta(minutes=1)
    after = [a_group("g0001", 3, later), a_group("g0002", 2, later)]
    assert newcomers.choose(after) == "g0002"


def test_processes_that_know_as_little_choose_different_groups() -> None:
    """Commands that each make one user begin with the same count, for a minute."""
    noon = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
    alike = [a_group(each, 7, noon) for each in GROUPS]
    assert len({Newcomers().choose(alike) for _ in range(50)}) > 1
