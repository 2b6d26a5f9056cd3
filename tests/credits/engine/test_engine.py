"""The batch engine and its callers: exact counts, keys, order, a bounded queue, an orderly end."""

import asyncio
from collections import Counter

import pytest
from sqlalchemy.orm import Session

from src.common.credits.engine import lane
from src.common.credits.engine.queue import EngineBusy
from src.local_postgres import ConnectionParameters
from tests.credits.books import journal, spend
from tests.credits.committed import balances, look, make_users
from tests.credits.engine.batching import (
    all_at_once,
    locked,
    make_rules_fail,
    metric,
    running,
    told,
    until_waiting,
    writes_held_up,
)

pytestmark = pytest.mark.xdist_group("credits_engine")


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize(("balance", "amount", "times"), [(50, 1, 100), (100, 7, 40)])
async def test_spends_at_once_succeed_as_often_as_the_balance_allows(
    fresh_database: ConnectionParameters, lanes: int, balance: int, amount: int, times: int
) -> None:
    """For each of three users: the balance divided by the amount, and no further one."""
    assert fresh_database
    people = make_users(*[balance] * 3)
    async with running(credits_engine_lanes=lanes, credits_engine_batch_max=16) as engine:
        commands = [spend(who, amount) for _ in range(times) for who in people]
        outcomes = await all_at_once(engine, commands)
    done = balance // amount
    for number in range(3):
        mine = Counter(map(told, outcomes[number::3]))
        assert mine == {"done": done, "INSUFFICIENT_CREDITS": times - done}
    assert balances(people) == [balance - done * amount] * 3


@pytest.mark.parametrize("batch_max", [1, 7, 256])
async def test_one_key_a_hundred_times_has_one_effect(
    fresh_database: ConnectionParameters, batch_max: int
) -> None:
    """A hundred equal answers, ninety-nine of them marked as replayed."""
    assert fresh_database
    [who] = make_users(50)
    command = spend(who, 7)
    async with running(credits_engine_batch_max=batch_max) as engine:
        answers = await all_at_once(engine, [command] * 100)
    assert len(set(answers)) == 1
    assert Counter(map(told, answers)) == {"done": 1, "replayed": 99}
    assert balances([who]) == [43]


async def test_a_full_queue_refuses_and_does_nothing(fresh_database: ConnectionParameters) -> None:
    """Those within the bound are done, the one beyond is ENGINE_BUSY; then there is room again."""
    assert fresh_database
    [who] = make_users(100)
    async with running(credits_engine_queue_max=3) as engine:
        accepted = [engine.submit(spend(who, 1)) for _ in range(3)]
        refused = spend(who, 50)
        with pytest.raises(EngineBusy) as busy:
            await engine.execute(refused)
        assert busy.value.error_type == "ENGINE_BUSY"
        await asyncio.gather(*accepted)
        assert balances([who]) == [97]
        assert not (await engine.execute(refused)).replayed
    assert balances([who]) == [47]


async def test_who_is_cancelled_before_the_batch_is_never_done(
    fresh_database: ConnectionParameters,
) -> None:
    """And leaves its place in the queue to another."""
    assert fresh_database
    [who] = make_users(100)
    async with running(credits_engine_queue_max=2) as engine:
        engine.submit(spend(who, 50)).cancel()
        assert (await engine.execute(spend(who, 1))).balance == 99
        for each in [engine.submit(spend(who, 1)) for _ in range(2)]:
            await each
    assert balances([who]) == [97]


async def test_a_batch_that_nobody_awaits_any_more_is_left_out(
    fresh_database: ConnectionParameters,
) -> None:
    """Of one user and of several, ahead and behind; the lane goes on."""
    assert fresh_database
    people = make_users(1_000, 1_000)
    async with running(credits_engine_lanes=1) as engine:
        for _ in range(3):
            for who in people:
                engine.submit(spend(who, 1)).cancel()
            await asyncio.sleep(0)
            assert told(await engine.execute(spend(people[0], 1))) == "done"
        asked = [engine.submit(spend(people[0], 1)) for _ in range(4 * lane.FOLLOW_FROM)]
        for each in asked[2 * lane.FOLLOW_FROM :]:
            each.cancel()
        await asyncio.wait(asked)
        assert told(await engine.execute(spend(people[1], 1))) == "done"
        await asyncio.sleep(0)
        assert metric("queued") == 0
    assert balances(people) == [1_000 - 3 - 2 * lane.FOLLOW_FROM, 999]


async def test_who_is_cancelled_meanwhile_learns_from_the_key(
    fresh_database: ConnectionParameters,
) -> None:
    """The operation commits all the same; the same key answers it, and has no further effect."""
    [who] = make_users(100)
    command = spend(who, 7)
    async with running(credits_engine_lanes=1) as engine:
        async with writes_held_up(fresh_database):
            caller = asyncio.create_task(engine.execute(command))
            await until_waiting(fresh_database)
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
        answer = await engine.execute(command)
        assert answer.replayed
    assert balances([who]) == [93]


async def test_a_bug_reaches_its_caller_alone(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the rules raise, everybody else in the batch is done, and so is who comes later."""
    assert fresh_database
    people = make_users(*[100] * 9)
    commands = [spend(who, 1) for who in people]
    make_rules_fail(monkeypatch, lambda command: command.key == commands[4].key)
    async with running(credits_engine_lanes=1) as engine:
        outcomes = await all_at_once(engine, commands)
        assert [told(each) for each in outcomes] == [
            *["done"] * 4,
            "ZeroDivisionError",
            *["done"] * 4,
        ]
        assert told(await engine.execute(spend(people[4], 1))) == "done"
    assert balances(people) == [99] * 9


async def test_closing_finishes_what_was_accepted(fresh_database: ConnectionParameters) -> None:
    """Everybody is answered, also the one whose row is locked; nobody else is accepted."""
    free, kept = make_users(100, 100)
    async with running(credits_engine_batch_max=3) as engine:
        with locked(fresh_database, kept):
            accepted = [engine.submit(spend(who, 1)) for who in (kept, free) for _ in range(10)]
            closing = asyncio.create_task(engine.aclose())
            await until_waiting(fresh_database)
            with pytest.raises(EngineBusy):
                await engine.execute(spend(free, 1))
        await closing
        assert all(answer.done() for answer in accepted)
        assert {told(await each) for each in accepted} == {"done"}
    assert balances([free, kept]) == [90, 90]


async def test_whoever_gives_up_closing_leaves_nobody_unanswered(
    fresh_database: ConnectionParameters,
) -> None:
    """Closing that is cancelled, by a time limit perhaps, does not take the lanes with it."""
    [who] = make_users(100)
    async with running() as engine:
        async with writes_held_up(fresh_database):
            answer = engine.submit(spend(who, 1))
            await until_waiting(fresh_database)
            closing = asyncio.create_task(engine.aclose())
            await asyncio.sleep(0)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
        assert told(await answer) == "done"
    assert balances([who]) == [99]


async def test_metrics_tell_of_batches_waits_and_the_queue(
    fresh_database: ConnectionParameters,
) -> None:
    """Ten operations are two batches of at most eight; then nothing waits."""
    assert fresh_database
    [who] = make_users(100)
    queued = []
    names = ("batch_operations_count", "batch_operations_sum", "operation_seconds_count")
    before = [metric(name) for name in names]
    async with running(credits_engine_lanes=1, credits_engine_batch_max=8) as engine:
        asked = [engine.submit(spend(who, 1)) for _ in range(10)]
        asked[0].add_done_callback(lambda _: queued.append(metric("queued")))
        await asyncio.gather(*asked)
        await asyncio.sleep(0)
        assert queued == [10]
        assert metric("queued") == 0
        assert metric("parked_users") == 0
    after = [metric(name) for name in names]
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 10, 2]


async def test_others_are_answered_while_a_row_stays_locked(
    fresh_database: ConnectionParameters,
) -> None:
    """In the same lane and the same batch; the user himself is done when the lock goes."""
    kept, *others = make_users(*[100] * 6)
    async with running(credits_engine_lanes=1, credits_engine_lock_timeout_ms=60_000) as engine:
        with locked(fresh_database, kept):
            waiting = [engine.submit(spend(kept, 1)) for _ in range(3)]
            for _ in range(3):
                outcomes = await all_at_once(engine, [spend(who, 1) for who in others])
                assert set(map(told, outcomes)) == {"done"}
            await until_waiting(fresh_database)
            assert metric("parked_users") == 1
            assert not any(answer.done() for answer in waiting)
        assert [(await each).balance for each in waiting] == [99, 98, 97]
    assert balances([kept, *others]) == [97, *[97] * 5]


async def test_a_locked_row_does_not_change_its_users_order(
    fresh_database: ConnectionParameters,
) -> None:
    """Whoever asked first is first, also when the lane's queue is longer than a batch."""
    kept, other = make_users(100, 100)
    async with running(credits_engine_lanes=1, credits_engine_batch_max=2) as engine:
        with locked(fresh_database, kept):
            first = engine.submit(spend(kept, 1))
            others = [engine.submit(spend(other, 1)) for _ in range(3)]
            second = engine.submit(spend(kept, 2))
            await others[0]  # with it, `first` was found locked; `second` is still in the queue
            third = engine.submit(spend(kept, 3))
            await asyncio.gather(*others)
        answers = await asyncio.gather(first, second, third)
    assert [answer.balance for answer in answers] == [99, 97, 94]


async def test_halves_of_a_failed_batch_keep_a_users_order(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was found locked in the first half waits with the second half's operations too."""
    kept, busy, other, ill = make_users(*[100] * 4)
    make_rules_fail(monkeypatch, lambda command: command.user_id == ill)
    async with running(
        credits_engine_lanes=1, credits_engine_side_lanes=1, credits_engine_lock_timeout_ms=60_000
    ) as engine:
        with locked(fresh_database, busy), locked(fresh_database, kept) as lock_of_kept:
            last = engine.submit(spend(busy, 1))
            await until_waiting(fresh_database)  # the only side lane
            first = engine.submit(spend(kept, 1))
            neighbour = engine.submit(spend(other, 1))
            second = engine.submit(spend(kept, 2))
            bug = engine.submit(spend(ill, 1))
            neighbour.add_done_callback(lambda _: lock_of_kept.rollback())
            with pytest.raises(ZeroDivisionError):
                await bug
        answers = await asyncio.gather(first, second, last)
    assert [answer.balance for answer in answers] == [99, 97, 99]


async def test_a_user_is_in_order_across_batches_and_lanes(
    fresh_database: ConnectionParameters,
) -> None:
    """The journal is in the order of asking, whatever the batches."""
    assert fresh_database
    people = make_users(10_000, 10_000, 10_000)
    async with running(credits_engine_batch_max=5) as engine:
        commands = [spend(who, number) for number in range(1, 41) for who in people]
        await all_at_once(engine, commands)

    def amounts(session: Session) -> list[list[int]]:
        return [[amount for _, amount in journal(session, who)][1:] for who in people]

    assert look(amounts) == [[-number for number in range(1, 41)]] * 3
