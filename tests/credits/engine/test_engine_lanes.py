"""No lane waits for another: not for one whose batch hangs, nor for one that others keep busy."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from src.common.credits.domain.commands import Command
from src.common.credits.engine import attempts, batches
from src.common.credits.engine import connection as engine_connection
from src.common.credits.engine import lane as engine_lane
from src.common.credits.persistence.reading import Locking
from src.local_postgres import ConnectionParameters
from tests.credits.books import spend
from tests.credits.committed import balances, make_users
from tests.credits.engine.batching import (
    all_at_once,
    locked,
    running,
    told,
    until_waiting,
    writes_held_up,
)
from tests.postgres.drivers import open_connection

pytestmark = pytest.mark.xdist_group("credits_engine")

SLOW = "slow"
_GATE = (
    """CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_advisory_xact_lock_shared(4711); RETURN NEW; END $$""",
    f"""CREATE TRIGGER a_gate BEFORE INSERT ON credit_entries FOR EACH ROW
    WHEN (NEW.reference = '{SLOW}') EXECUTE FUNCTION gate()""",
)


async def test_a_batch_that_hangs_holds_up_nobody_else(
    fresh_database: ConnectionParameters,
) -> None:
    """However few wait: another lane takes them before the one that hangs gives up."""
    slow, other = make_users(100, 100)
    with open_connection(fresh_database) as gate:
        for statement in _GATE:
            gate.execute(statement.encode())
        gate.execute("SELECT pg_advisory_lock(4711)")
        async with running(credits_engine_lanes=2, credits_engine_lock_timeout_ms=10_000) as engine:
            hanging = engine.submit(spend(slow, 1, reference=SLOW))
            await until_waiting(fresh_database)
            behind = engine.submit(spend(slow, 2))
            for _ in range(3):
                assert told(await engine.execute(spend(other, 1))) == "done"
            assert not hanging.done()
            gate.execute("SELECT pg_advisory_unlock(4711)")
            assert [(await each).balance for each in (hanging, behind)] == [99, 97]
    assert balances([slow, other]) == [97, 97]


async def test_a_user_others_keep_writing_to_leaves_the_side_lane_to_the_next(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits behind him in the only side lane is answered while he still asks for more."""
    busy, other, neighbour = make_users(10_000, 100, 100)
    run_batch = batches.run_batch

    async def run_contended(connection: Any, commands: Sequence[Command], locking: Locking) -> Any:
        outcomes, was_contended = await run_batch(connection, commands, locking)
        return outcomes, was_contended or locking is Locking.WAIT

    monkeypatch.setattr(engine_connection, "run_batch", run_contended)
    async with running(
        credits_engine_lanes=1, credits_engine_side_lanes=1, credits_engine_lock_timeout_ms=60_000
    ) as engine:
        with locked(fresh_database, busy):
            first = engine.submit(spend(busy, 1))
            await until_waiting(fresh_database)
            with locked(fresh_database, other):
                second = engine.submit(spend(other, 1))
                await engine.execute(spend(neighbour, 1))  # with it, `other` was found locked
        waiting = [first, *(engine.submit(spend(busy, 1)) for _ in range(2))]
        while not second.done():  # at the latest when he has spent all that he has
            assert told(await waiting.pop(0)) == "done"
            waiting.append(engine.submit(spend(busy, 1)))
        assert {told(await each) for each in (second, *waiting)} == {"done"}


async def test_a_lane_that_was_woken_gets_its_share(fresh_database: ConnectionParameters) -> None:
    """Of many callers that ask again and again, both lanes have some under way at once."""
    other, *people = make_users(*[1_000] * 65)
    is_over = asyncio.Event()

    async def ask_again_and_again(who: uuid.UUID) -> int:
        times = 0
        while times < 5 or not is_over.is_set():
            await engine.execute(spend(who, 1))
            times += 1
        return times

    async with running(credits_engine_lanes=2, credits_engine_lock_timeout_ms=60_000) as engine:
        callers = [asyncio.create_task(ask_again_and_again(who)) for who in people]
        for _ in range(5):
            await engine.execute(spend(other, 1))
        async with writes_held_up(fresh_database):
            await until_waiting(fresh_database, 2)
            is_over.set()
        times = await asyncio.gather(*callers)
    assert balances(people) == [1_000 - each for each in times]


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("step", ["_prepare", "_answer"])
async def test_a_lanes_own_bug_is_logged_and_told_those_it_had(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch, step: str, lanes: int
) -> None:
    """They do not wait for ever; the lane goes on, and their keys tell what became of them."""
    assert fresh_database
    people = make_users(100, 100)
    lane: Any = engine_lane.Lane
    work = getattr(lane, step)
    has_failed: list[bool] = []

    def fail_once(self: Any, *arguments: Any) -> Any:
        if not has_failed:
            has_failed.append(True)
            raise ZeroDivisionError
        return work(self, *arguments)

    commands = [spend(who, 1) for who in people]
    with capture_logs() as logs:
        async with running(credits_engine_lanes=lanes) as engine:
            await engine.execute(spend(people[0], 1))  # the first of a connection is not prepared
            monkeypatch.setattr(lane, step, fail_once)
            outcomes = await all_at_once(engine, commands)
            assert [told(each) for each in outcomes] == ["ZeroDivisionError"] * 2
            expected = {"_prepare": "done", "_answer": "replayed"}[step]
            assert [told(each) for each in await all_at_once(engine, commands)] == [expected] * 2
    assert [each["event"] for each in logs] == ["A lane of the credits' engine failed by a bug"]
    assert balances(people) == [98, 99]


async def test_a_lanes_own_bug_leaves_no_operation_in_the_queue(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one that nobody awaited any more: the queue has all its room again."""
    [who] = make_users(100)
    lane: Any = engine_lane.Lane

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    async with running(credits_engine_lanes=1, credits_engine_queue_max=2) as engine:
        await engine.execute(spend(who, 1))
        with monkeypatch.context() as patched, capture_logs():
            patched.setattr(lane, "_answer", fail)
            async with writes_held_up(fresh_database):
                asked = [engine.submit(spend(who, 1)) for _ in range(2)]
                await until_waiting(fresh_database)
                asked[0].cancel()
            with pytest.raises(ZeroDivisionError):
                await asked[1]
        outcomes = await all_at_once(engine, [spend(who, 1), spend(who, 1)])
        assert [told(each) for each in outcomes] == ["done"] * 2
    assert balances([who]) == [95]


async def test_a_side_lanes_own_bug_is_logged_and_told_those_it_had(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose row was locked does not wait for ever, and may ask again."""
    [who] = make_users(100)
    run = attempts.run

    async def run_or_fail(queue: Any, connection: Any, batch: Any, locking: Locking) -> Any:
        if locking is Locking.WAIT:
            raise ZeroDivisionError
        return await run(queue, connection, batch, locking)

    async with running(credits_engine_lanes=1) as engine:
        with monkeypatch.context() as patched, capture_logs() as logs:
            patched.setattr(attempts, "run", run_or_fail)
            with locked(fresh_database, who), pytest.raises(ZeroDivisionError):
                await engine.execute(spend(who, 1))
        assert told(await engine.execute(spend(who, 1))) == "done"
    assert [each["event"] for each in logs] == [
        "A side lane of the credits' engine failed by a bug"
    ]
    assert balances([who]) == [99]
