"""The engine reads without locks: whoever comes between that and the write is noticed."""

import asyncio
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from src.common.accounts import operations as accounts
from src.common.credits.domain.commands import Command
from src.common.credits.engine import batches, lane
from src.common.credits.engine import connection as engine_connection
from src.common.credits.operations import execute
from src.common.credits.persistence.storage import load_books
from src.common.database import SessionLocal
from src.common.postgres.errors import RetryableDatabaseError
from src.local_postgres import ConnectionParameters
from tests.credits.books import open_hold, release, spend
from tests.credits.committed import balances, make_users
from tests.credits.crashes import deaf_proxy
from tests.credits.engine.batching import all_at_once, locked, running, told, until_waiting
from tests.postgres.drivers import open_connection

pytestmark = pytest.mark.xdist_group("credits_engine")


def in_a_session(command: Command) -> None:
    """Do a command as a program without an engine does."""
    with SessionLocal.begin() as session:
        execute(session, [command])


@contextmanager
def after_the_read(
    monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]
) -> Generator[list[int]]:
    """Do something once, after the engine has read its next batch and before it writes.

    Gives the sizes of the batches tried without locks meanwhile.
    """
    read = batches.read_unlocked
    sizes: list[int] = []

    async def read_and_let_others_in(connection: Any, commands: Sequence[Command]) -> Any:
        found = await read(connection, commands)
        if not sizes:
            meanwhile()
        sizes.append(len(commands))
        return found

    with monkeypatch.context() as patched:
        patched.setattr(engine_connection, "read_unlocked", read_and_let_others_in)
        yield sizes


async def test_who_comes_between_read_and_write_is_counted(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session spends what the engine has read: the engine's spend is refused, others are done."""
    assert fresh_database
    people = make_users(*[100] * 4)
    async with running(credits_engine_lanes=1) as engine:
        assert told(await engine.execute(spend(people[0], 1))) == "done"
        with after_the_read(monkeypatch, lambda: in_a_session(spend(people[1], 60))) as sizes:
            outcomes = await all_at_once(engine, [spend(who, 50) for who in people])
        assert [told(each) for each in outcomes] == [
            "done",
            "INSUFFICIENT_CREDITS",
            "done",
            "done",
        ]
        assert sizes == [4]
    assert balances(people) == [49, 40, 50, 50]


async def test_one_key_that_comes_between_has_one_effect(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session does the very command between the engine's read and its write: it is a replay."""
    assert fresh_database
    [who] = make_users(100)
    command = spend(who, 7)
    async with running(credits_engine_lanes=1) as engine:
        assert told(await engine.execute(spend(who, 1))) == "done"
        with after_the_read(monkeypatch, lambda: in_a_session(command)):
            assert told(await engine.execute(command)) == "replayed"
    assert balances([who]) == [92]


async def test_a_hold_released_between_is_not_released_again(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The credits come back once."""
    assert fresh_database
    [who] = make_users(100)
    async with running(credits_engine_lanes=1) as engine:
        hold = await engine.execute(open_hold(who, 30))
        with after_the_read(monkeypatch, lambda: in_a_session(release(who, hold.seq))):
            [outcome] = await all_at_once(engine, [release(who, hold.seq)])
    assert told(outcome) == "HOLD_CLOSED"
    assert balances([who]) == [100]


async def test_a_row_locked_between_holds_up_nobody_else(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its user is parked and done when the lock goes; the others are answered before."""
    people = make_users(*[100] * 3)
    lock = locked(fresh_database, people[1])
    async with running(credits_engine_lanes=1, credits_engine_lock_timeout_ms=60_000) as engine:
        assert told(await engine.execute(spend(people[0], 1))) == "done"
        with after_the_read(monkeypatch, lock.__enter__):
            asked = [engine.submit(spend(who, 1)) for who in people]
            assert {told(await asked[number]) for number in (0, 2)} == {"done"}
            await until_waiting(fresh_database)
            assert not asked[1].done()
            lock.__exit__(None, None, None)
            assert told(await asked[1]) == "done"
    assert balances(people) == [98, 99, 99]


async def test_a_write_whose_answer_is_lost_is_found_by_its_key(
    fresh_database: ConnectionParameters,
) -> None:
    """Also where the write is a database transaction of its own, without a COMMIT to be lost."""
    people = make_users(100, 100, 100)
    last_words = "never heard of again"
    commands = [spend(who, 1, reference=last_words) for who in people for _ in range(3)]
    with deaf_proxy(fresh_database, last_words.encode()) as port:
        async with running(
            credits_engine_lanes=1, database_host="127.0.0.1", database_port=str(port)
        ) as engine:
            assert told(await engine.execute(spend(people[0], 1))) == "done"
            outcomes = await all_at_once(engine, commands)
    assert all(isinstance(each, RetryableDatabaseError) for each in outcomes)
    async with running() as engine:
        assert {told(each) for each in await all_at_once(engine, commands)} == {"replayed"}
    assert balances(people) == [96, 97, 97]


async def test_a_contended_user_goes_back_to_the_lanes(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once nobody else writes any more, batches are tried without locks again."""
    [who] = make_users(1_000)
    async with running(credits_engine_lanes=1) as engine:
        with locked(fresh_database, who):
            first = engine.submit(spend(who, 1))
            await until_waiting(fresh_database)
        assert told(await first) == "done"
        with after_the_read(monkeypatch, lambda: None) as sizes:
            for _ in range(2 * lane.LOCKS_FIRST_AFTER_CONFLICT):
                assert told(await engine.execute(spend(who, 1))) == "done"
        assert sizes
        assert set(sizes) == {1}
    assert balances([who]) == [1_000 - 1 - 2 * lane.LOCKS_FIRST_AFTER_CONFLICT]


async def test_who_is_deactivated_between_spends_nothing(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It changes no books, and so no version; nobody spends after it has committed."""
    assert fresh_database
    people = make_users(100, 100)

    def deactivate() -> None:
        with SessionLocal.begin() as session:
            accounts.set_active(session, people[0], is_active=False)

    async with running(credits_engine_lanes=1) as engine:
        assert told(await engine.execute(spend(people[0], 1))) == "done"
        with after_the_read(monkeypatch, deactivate):
            outcomes = await all_at_once(engine, [spend(who, 1) for who in people])
    assert [told(each) for each in outcomes] == ["USER_INACTIVE", "done"]
    assert balances(people) == [99, 99]


async def test_an_inactive_users_hold_is_released_without_locks(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an inactive user may still do conflicts with nobody."""
    assert fresh_database
    [who] = make_users(100)
    async with running(credits_engine_lanes=1) as engine:
        holds = [await engine.execute(open_hold(who, 10)) for _ in range(3)]
        with SessionLocal.begin() as session:
            accounts.set_active(session, who, is_active=False)
        with after_the_read(monkeypatch, lambda: None) as sizes:
            for hold in holds:
                assert told(await engine.execute(release(who, hold.seq))) == "done"
        assert sizes == [1, 1, 1]
    assert balances([who]) == [100]


_GATE = (
    """CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF current_setting('application_name') = 'engine-under-test' THEN
        PERFORM pg_advisory_xact_lock(4711);
    END IF; RETURN NULL; END $$""",
    "CREATE TRIGGER a_gate BEFORE UPDATE ON users FOR EACH STATEMENT EXECUTE FUNCTION gate()",
)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("UPDATE users SET first_name = 'New'", ["done", "done"]),
        ("UPDATE users SET is_active = false", ["USER_INACTIVE", "done"]),
        (None, ["INSUFFICIENT_CREDITS", "done"]),
    ],
    ids=["the profile", "is_active", "the books"],
)
async def test_a_change_between_the_writes_snapshot_and_its_locks_is_seen(
    fresh_database: ConnectionParameters, change: str | None, expected: list[str]
) -> None:
    """A change of the profile stays and is no conflict, one of the books is."""
    people = make_users(100, 100)
    async with running(credits_engine_lanes=1) as engine:
        assert told(await engine.execute(spend(people[0], 1))) == "done"
        with open_connection(fresh_database) as other:
            for statement in _GATE:
                other.execute(statement.encode())
            other.execute("SELECT pg_advisory_lock(4711)")
            asked = [engine.submit(spend(who, 50)) for who in people]
            await until_waiting(fresh_database)
            if change is None:
                in_a_session(spend(people[0], 60))
            else:
                other.execute(f"{change} WHERE user_id = %s".encode(), [people[0]])
            other.execute("SELECT pg_advisory_unlock(4711)")
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
            names = other.execute(
                "SELECT first_name FROM users WHERE user_id = %s", [people[0]]
            ).fetchall()
    assert [told(each) for each in outcomes] == expected
    assert (names == [("New",)]) == (change is not None and "New" in change)
    first = 49 if expected[0] == "done" else 39 if change is None else 99
    assert balances(people) == [first, 50]


def test_books_read_without_locks_are_of_one_instant(fresh_database: ConnectionParameters) -> None:
    """The snapshot's: by a later clock a hold may seem expired that was renewed meanwhile."""
    assert fresh_database
    people = make_users(*[1] * 20)
    with SessionLocal() as session:
        assert len({book.now for book in load_books(session, people).values()}) == 1
