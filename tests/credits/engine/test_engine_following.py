"""One user's many operations: a batch is decided while the one before it is being written."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from src.common.credits.domain.book import StoredBook
from src.common.credits.domain.commands import Command, Result
from src.common.credits.engine import batches
from src.common.credits.engine import connection as engine_connection
from src.common.credits.engine import lane as engine_lane
from src.common.credits.persistence.reading import Locking
from src.common.database_settings import DatabasePooler
from src.local_postgres import ConnectionParameters
from tests.credits.books import capture, grant, open_hold, release, reverse, spend
from tests.credits.committed import balances, make_users
from tests.credits.engine.batching import (
    all_at_once,
    make_rules_fail,
    running,
    told,
    until_waiting,
    writes_held_up,
)
from tests.credits.engine.test_engine_failures import terminate_engine

pytestmark = pytest.mark.xdist_group("credits_engine")

MANY = 4 * engine_lane.FOLLOW_FROM


async def warm_up(engine: Any, command: Command) -> None:
    """Have both connections of the only lane: what first uses one locks."""
    lane = engine._lanes[0]  # noqa: SLF001
    for connection in lane._connections:  # noqa: SLF001
        await connection.run([command], Locking.SKIP)


@contextmanager
def locked_batches(monkeypatch: pytest.MonkeyPatch) -> Generator[list[int]]:
    """The sizes of the batches that are run with locks."""
    sizes: list[int] = []
    run_batch = batches.run_batch

    async def run_batch_and_tell(
        connection: Any, commands: Sequence[Command], locking: Locking
    ) -> Any:
        sizes.append(len(commands))
        return await run_batch(connection, commands, locking)

    with monkeypatch.context() as patched:
        patched.setattr(engine_connection, "run_batch", run_batch_and_tell)
        yield sizes


async def test_nobody_comes_between_a_batch_and_the_next(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are decided on what those before leave: none is read in vain, none has to lock."""
    assert fresh_database
    [who] = make_users(3 * MANY + 1)
    left: list[int] = []
    follow = batches.follow

    def follow_and_tell(books: Any, books_left: Any) -> dict[Any, StoredBook] | None:
        left.append(len(books_left))
        return follow(books, books_left)

    async with running(credits_engine_lanes=1) as engine:
        await warm_up(engine, spend(who, 1))
        monkeypatch.setattr(engine_connection, "follow", follow_and_tell)

        async def ask_three_times() -> list[int]:
            return [(await engine.execute(spend(who, 1))).balance for _ in range(3)]

        with locked_batches(monkeypatch) as locked:
            found = await asyncio.gather(*[ask_three_times() for _ in range(MANY)])
    assert sorted(itertools.chain(*found)) == list(range(3 * MANY))
    assert {0, 1} == {*left}
    assert locked == []
    assert balances([who]) == [0]


async def test_nobody_else_waits_for_as_long_as_one_user_is_asked_for(
    fresh_database: ConnectionParameters,
) -> None:
    """The only lane leaves the busy user's line when others are ready."""
    assert fresh_database
    busy, other = make_users(100_000, 100)
    asked = 0

    async def ask_until_the_other_is_done() -> None:
        nonlocal asked
        while not is_done.is_set() and asked < 100 * MANY:
            asked += 1
            if asked > 3 * MANY:
                is_busy.set()
            await engine.execute(spend(busy, 1))

    is_busy, is_done = asyncio.Event(), asyncio.Event()
    async with running(credits_engine_lanes=1) as engine:
        await warm_up(engine, spend(busy, 1))
        callers = [asyncio.create_task(ask_until_the_other_is_done()) for _ in range(MANY)]
        await is_busy.wait()
        assert told(await engine.execute(spend(other, 1))) == "done"
        is_done.set()
        await asyncio.gather(*callers)
    assert asked < 100 * MANY
    assert balances([busy, other]) == [99_999 - asked, 99]


async def test_what_follows_a_batch_that_fails_is_decided_anew(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bug reaches its caller alone; the others are done, in the order of asking."""
    assert fresh_database
    [who] = make_users(10_000)
    write = engine_connection.EngineConnection.write
    failed: list[bool] = []

    async def write_or_fail(self: Any, prepared: Any) -> bool:
        if not failed:
            failed.append(True)
            await asyncio.sleep(0.05)  # until the next is prepared
            raise ZeroDivisionError
        return await write(self, prepared)

    async with running(credits_engine_lanes=1) as engine:
        await warm_up(engine, spend(who, 1))
        monkeypatch.setattr(engine_connection.EngineConnection, "write", write_or_fail)
        outcomes = await all_at_once(engine, [spend(who, 1) for _ in range(MANY)])
    assert failed
    assert {told(each) for each in outcomes} == {"done"}
    assert [each.balance for each in outcomes if isinstance(each, Result)] == [
        9_998 - number for number in range(MANY)
    ]
    assert balances([who]) == [9_999 - MANY]


async def test_a_connection_lost_under_a_batch_takes_nobody_else_along(
    fresh_database: ConnectionParameters,
) -> None:
    """Who was asked in it is told to try again; who only followed is done, once."""
    [who] = make_users(10_000)
    commands = [spend(who, 1) for _ in range(MANY)]
    async with running(credits_engine_lanes=1) as engine:
        await warm_up(engine, spend(who, 1))
        async with writes_held_up(fresh_database):
            asked = [engine.submit(command) for command in commands]
            await until_waiting(fresh_database)
            terminate_engine(fresh_database)
            first = await asyncio.gather(*asked[: MANY // 2], return_exceptions=True)
            assert {told(each) for each in first} == {"DATABASE_BUSY"}
        assert {told(await each) for each in asked[MANY // 2 :]} == {"done"}
        again = await all_at_once(engine, commands)
    assert [told(each) for each in again] == ["done"] * (MANY // 2) + ["replayed"] * (MANY // 2)
    assert balances([who]) == [9_999 - MANY]


async def test_a_silent_connection_keeps_no_answer_back(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was in the batch ahead is answered while the next is still being read."""
    assert fresh_database
    [who] = make_users(10_000)
    prepare = engine_connection.EngineConnection.prepare
    answers_again = asyncio.Event()

    async def prepare_or_hang(self: Any, commands: Sequence[Command], left: Any) -> Any:
        if left:
            await answers_again.wait()
        return await prepare(self, commands, left)

    async with running(credits_engine_lanes=1) as engine:
        await warm_up(engine, spend(who, 1))
        monkeypatch.setattr(engine_connection.EngineConnection, "prepare", prepare_or_hang)
        asked = [engine.submit(spend(who, 1)) for _ in range(MANY)]
        assert {told(each) for each in await asyncio.gather(*asked[: MANY // 2])} == {"done"}
        assert not any(each.done() for each in asked[MANY // 2 :])
        answers_again.set()
        assert {told(each) for each in await asyncio.gather(*asked)} == {"done"}
    assert balances([who]) == [9_999 - MANY]


async def test_operations_that_name_holds_wait_and_need_no_lock(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read once, after the batch ahead is written."""
    assert fresh_database
    [who] = make_users(10_000)
    with locked_batches(monkeypatch) as locked:
        async with running(credits_engine_lanes=1) as engine:
            await warm_up(engine, spend(who, 1))
            hold = await engine.execute(open_hold(who, 1_000))
            locked.clear()
            half = [spend(who, 1) for _ in range(MANY // 2)]
            captures = [capture(who, hold.seq, 1, final=False) for _ in range(MANY // 2)]
            outcomes = await all_at_once(engine, [*half, *captures])
    assert {told(each) for each in outcomes} == {"done"}
    assert locked == []
    assert balances([who]) == [9_999 - 1_000 - MANY // 2]


async def test_where_nothing_can_follow_no_batch_is_halved(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a pooler a batch takes all it may."""
    assert fresh_database
    [who] = make_users(MANY)
    with locked_batches(monkeypatch) as locked:
        async with running(
            credits_engine_lanes=1, database_pooler=DatabasePooler.PREPARED
        ) as engine:
            await all_at_once(engine, [spend(who, 1) for _ in range(MANY)])
    assert locked == [MANY]
    assert balances([who]) == [0]


@pytest.mark.parametrize("bug_at", [MANY // 2 - 1, MANY // 2, MANY - 1])
async def test_a_bug_while_deciding_reaches_its_caller_alone(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch, bug_at: int
) -> None:
    """In the batch that goes first and in the one that follows."""
    assert fresh_database
    [who] = make_users(10_000)
    commands = [spend(who, 1) for _ in range(MANY)]
    async with running(credits_engine_lanes=1) as engine:
        await warm_up(engine, spend(who, 1))
        make_rules_fail(monkeypatch, lambda command: command.key == commands[bug_at].key)
        outcomes = await all_at_once(engine, commands)
    expected = ["done"] * MANY
    expected[bug_at] = "ZeroDivisionError"
    assert [told(each) for each in outcomes] == expected
    assert balances([who]) == [9_999 - (MANY - 1)]


async def test_keys_holds_and_lots_of_the_batch_ahead_are_known(
    fresh_database: ConnectionParameters,
) -> None:
    """What follows finds the keys just used, the lots just granted and the holds just opened."""
    assert fresh_database
    [who] = make_users(10_000)
    half = MANY // 2
    async with running(credits_engine_lanes=1) as engine:
        await warm_up(engine, spend(who, 1))
        hold = await engine.execute(open_hold(who, 10))
        ahead = [
            spend(who, 1),
            grant(who, 7, priority=1),
            *(spend(who, 1) for _ in range(half - 2)),
        ]
        spends = [ahead[0], spend(who, 9_000), *(spend(who, 1) for _ in range(half - 2))]
        outcomes = await all_at_once(engine, [*ahead, *spends])
        assert [told(each) for each in outcomes] == [
            *["done"] * half,
            *("replayed", "done"),
            *["done"] * (half - 2),
        ]
        left = 10_000 - 1 - 10 + 7 - (half - 1) - 9_000 - (half - 2)
        assert balances([who]) == [left]
        holds = [*(spend(who, 1) for _ in range(half)), capture(who, hold.seq, 4), release(who, 3)]
        outcomes = await all_at_once(engine, [*holds, *(spend(who, 1) for _ in range(half - 2))])
        assert [told(each) for each in outcomes] == [
            *["done"] * (half + 1),
            "HOLD_CLOSED" if hold.seq == 3 else "HOLD_NOT_FOUND",
            *["done"] * (half - 2),
        ]
    assert balances([who]) == [left + 6 - half - (half - 2)]


async def test_parts_of_an_entry_are_undone_while_others_are_being_written(
    fresh_database: ConnectionParameters,
) -> None:
    """However many ask at once, what is undone adds up to what the entry took."""
    assert fresh_database
    [who] = make_users(MANY)
    async with running(credits_engine_lanes=1) as engine:
        await warm_up(engine, spend(who, MANY))
        found = await all_at_once(engine, [reverse(who, 2, 1) for _ in range(2 * MANY)])
    assert Counter(map(told, found)) == {"done": MANY, "REVERSAL_EXCEEDS_ENTRY": MANY}
    assert balances([who]) == [MANY]


async def test_an_entry_is_undone_that_is_being_written(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks for the number it will have is answered as if all came one by one."""
    assert fresh_database
    [who] = make_users(MANY)
    async with running(credits_engine_lanes=1) as engine:
        await warm_up(engine, spend(who, 1))
        with locked_batches(monkeypatch):
            spends = asyncio.gather(*[engine.execute(spend(who, 1)) for _ in range(MANY - 1)])
            await asyncio.sleep(0)
            undone = await all_at_once(engine, [reverse(who, 3 + n) for n in range(MANY - 1)])
            await spends
    assert Counter(map(told, undone)) == {"done": MANY - 1}
    assert balances([who]) == [MANY - 1]
