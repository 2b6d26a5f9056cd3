"""The batch engine over eight groups: callers see one engine, and every book is right."""

import asyncio
import random
import uuid
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest
from sqlalchemy import text

from src.common.credits.domain.commands import Command, Grant, Result, Spend
from src.common.credits.engine.engine import FURTHER_LANE_FROM, Engine
from src.common.credits.engine.queue import EngineBusy
from src.common.database import get_engine, run_in_database_transaction
from src.common.postgres.routes import routed_to_schema
from src.common.routing import routed_to
from src.local_postgres import ConnectionParameters
from tests.credits.books import check_books, grant, spend
from tests.credits.engine.batching import all_at_once, metric, running, told
from tests.postgres.drivers import open_connection
from tests.sharding.conftest import GROUPS
from tests.sharding.people import balance_of, user_of

OPERATIONS = 2_000
PEOPLE = 4
"""In each group."""


def people_of(number: int, balance: int = 0) -> list[uuid.UUID]:
    """So many users in each group."""
    return [user_of(group, balance) for group in GROUPS for _ in range(number)]


def drawn(people: Sequence[uuid.UUID], seed: int) -> list[Command]:
    """Grants, spends that may be too large, and repeated ones."""
    chance = random.Random(seed)  # noqa: S311
    commands: list[Command] = []
    for _ in range(OPERATIONS):
        who, amount = chance.choice(people), chance.randint(1, 20)
        word = chance.choice([grant, spend, spend])
        if commands and chance.random() < 0.1:
            commands.append(chance.choice(commands))
        else:
            commands.append(word(who, amount))
    return commands


def modelled(commands: Sequence[Command]) -> tuple[list[str], dict[uuid.UUID, int]]:
    """What each comes to, and what everybody has afterwards: a user's own one after the other."""
    balances: defaultdict[uuid.UUID, int] = defaultdict(int)
    done: set[str] = set()
    outcomes: list[str] = []
    for command in commands:
        assert isinstance(command, Grant | Spend)
        change = command.amount if isinstance(command, Grant) else -command.amount
        if command.key in done:
            outcomes.append("replayed")
        elif balances[command.user_id] + change < 0:
            outcomes.append("INSUFFICIENT_CREDITS")
        else:
            balances[command.user_id] += change
            done.add(command.key)
            outcomes.append("done")
    return outcomes, balances


def check_all_books() -> None:
    """Every group's books balance."""
    for group in GROUPS:
        with routed_to_schema(group):
            run_in_database_transaction(check_books)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"credits_engine_groups": 1, "credits_engine_lanes": 1, "credits_engine_side_lanes": 1},
        {"credits_engine_batch_max": 3},
    ],
    ids=["connections for all", "fewer connections than groups", "small batches"],
)
async def test_eight_groups_come_to_what_the_model_says(
    groups: ConnectionParameters, changed: dict[str, int]
) -> None:
    """Every outcome and every balance, however the groups share connections."""
    assert groups
    people = await asyncio.to_thread(people_of, PEOPLE)
    commands = drawn(people, seed=20_261_201)
    expected, balances = modelled(commands)
    async with running(**changed) as engine:
        outcomes = await all_at_once(engine, commands)
        assert engine.operations_waiting == 0
    assert list(map(told, outcomes)) == expected
    found = await asyncio.to_thread(lambda: {who: balance_of(who) for who in people})
    assert found == {who: balances[who] for who in people}
    await asyncio.to_thread(check_all_books)


async def test_callers_who_wait_for_each_answer_are_all_served(
    groups: ConnectionParameters,
) -> None:
    """256 callers over eight groups with five connections: nobody starves, nothing is lost."""
    assert groups
    people = await asyncio.to_thread(people_of, 32, 10)

    async def call(engine: Engine, who: uuid.UUID) -> list[int]:
        return [(await engine.execute(spend(who, 1))).balance for _ in range(10)]

    few = {"credits_engine_groups": 1, "credits_engine_lanes": 1, "credits_engine_side_lanes": 2}
    async with running(**few) as engine:
        found = await asyncio.gather(*(call(engine, who) for who in people))
    assert found == [list(range(9, -1, -1))] * len(people)
    await asyncio.to_thread(check_all_books)


async def test_lanes_open_no_more_connections_than_were_said(groups: ConnectionParameters) -> None:
    """However many groups are busy."""
    few = {"credits_engine_groups": 1, "credits_engine_lanes": 1, "credits_engine_side_lanes": 1}
    people = await asyncio.to_thread(people_of, 2, 1_000)
    most = 0
    async with running(**few) as engine:
        with open_connection(groups) as admin:
            for _ in range(20):
                await all_at_once(engine, [spend(who, 1) for who in people])
                [row] = admin.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND application_name = 'engine-under-test'"
                ).fetchall()
                most = max(most, row[0])
    assert 1 <= most <= 4


async def test_busy_groups_have_one_batch_each(groups: ConnectionParameters) -> None:
    """A group's second lane takes no half of what waits while other groups keep the server busy."""
    assert groups
    people = await asyncio.to_thread(people_of, FURTHER_LANE_FROM + 4, 10)
    async with running(credits_engine_lanes=2) as engine:
        await all_at_once(engine, [spend(who, 1) for who in people])  # groups are known from now on
        batches = metric("batch_operations_count")
        answers = await all_at_once(engine, [spend(who, 1) for who in people])
        assert {told(each) for each in answers} == {"done"}
        halved = 1  # of the group that is asked first: nobody else was busy yet
        assert metric("batch_operations_count") - batches <= len(GROUPS) + halved


async def test_an_unknown_user_is_told_so_and_others_are_served(
    groups: ConnectionParameters,
) -> None:
    """In the same breath; and a user who is made later is found."""
    assert groups
    known, nobody = await asyncio.to_thread(user_of, "g0002", 5), uuid.uuid4()
    async with running() as engine:
        outcomes = await all_at_once(engine, [spend(nobody, 1), spend(known, 1), spend(nobody, 1)])
        assert list(map(told, outcomes)) == ["USER_NOT_FOUND", "done", "USER_NOT_FOUND"]
        await asyncio.to_thread(lambda: user_of("g0003", 5, user_id=nobody))
        assert told((await all_at_once(engine, [spend(nobody, 1)]))[0]) == "done"


async def test_one_users_operations_stay_in_their_order(groups: ConnectionParameters) -> None:
    """Also those that were asked before it was known where the user is."""
    assert groups
    who = await asyncio.to_thread(user_of, "g0004")
    asked = [word(who, 1) for _ in range(100) for word in (grant, spend)]
    async with running(credits_engine_batch_max=7) as engine:
        first = [engine.submit(each) for each in asked[:50]]
        await asyncio.sleep(0)
        others = [engine.submit(each) for each in asked[50:]]
        found = await asyncio.gather(*first, *others)
    assert [each.seq for each in found] == list(range(1, 201))


async def test_what_may_wait_is_counted_over_all_groups(groups: ConnectionParameters) -> None:
    """One more is refused at once, wherever its user is; who gives up makes room."""
    assert groups
    people = await asyncio.to_thread(people_of, 1, 5)
    async with running(credits_engine_queue_max=4) as engine:
        waiting = [engine.submit(spend(who, 1)) for who in people[:4]]
        with pytest.raises(EngineBusy, match="Too many"):
            engine.submit(spend(people[7], 1))
        waiting[0].cancel()
        waiting.append(engine.submit(spend(people[7], 1)))
        answers = await asyncio.gather(*waiting, return_exceptions=True)
    words = Counter(type(each).__name__ for each in answers)
    assert words == {Result.__name__: 4, "CancelledError": 1}
    with pytest.raises(EngineBusy, match="not running"):
        engine.submit(spend(people[0], 1))


async def test_a_locked_user_of_one_group_delays_no_other_group(
    groups: ConnectionParameters,
) -> None:
    """Those who wait for a row are tried apart, as without groups."""
    people = await asyncio.to_thread(people_of, 1, 5)
    async with running(credits_engine_lock_timeout_ms=60_000) as engine:
        with open_connection(groups) as other, other.transaction():
            other.execute("SELECT FROM g0001.users FOR UPDATE")
            locked = engine.submit(spend(people[0], 1))
            done = await asyncio.gather(*(engine.execute(spend(who, 1)) for who in people[1:]))
            assert [each.balance for each in done] == [4] * 7
            assert not locked.done()
        assert (await locked).balance == 4


async def test_lost_connections_lose_nobodys_answer(groups: ConnectionParameters) -> None:
    """Whoever's was cut off is told to ask again, and asking again with the key books once."""
    people = await asyncio.to_thread(people_of, 2, 100)
    commands = [spend(who, 1, key=f"k{number}") for number in range(20) for who in people]
    async with running() as engine:
        asked = [engine.submit(each) for each in commands]
        await asyncio.sleep(0.01)
        with open_connection(groups) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'engine-under-test' AND datname = current_database()"
            )
        first = await asyncio.gather(*asked, return_exceptions=True)
        assert {*map(told, first)} <= {"done", "DATABASE_BUSY"}
        again = await all_at_once(engine, commands)
    assert {*map(told, again)} <= {"done", "replayed"}
    with get_engine().connect() as connection:
        spent = [
            connection.scalar(text(f"SELECT count(*) FROM {group}.credit_entries WHERE amount < 0"))  # noqa: S608
            for group in GROUPS
        ]
    assert spent == [40] * len(GROUPS)
    with routed_to(people[0]):
        run_in_database_transaction(check_books)
