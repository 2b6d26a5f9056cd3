"""Reservations whose own database transactions fail: what became of the credits is told."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker
from structlog.testing import capture_logs

from src.common.async_database import AsyncSessionLocal
from src.common.credits import ledger
from src.common.credits.reservation import Reservation, ReservationState, reserve, reserve_async
from src.common.database import SessionLocal
from src.common.exceptions import DatabaseBusy
from src.common.postgres.engines import build_async_engine, build_engine
from src.common.postgres.errors import RetryableDatabaseError
from src.common.settings import Settings, get_settings
from src.local_postgres import ConnectionParameters
from tests.credits.committed import balances, make_users, open_holds
from tests.credits.crashes import deaf_proxy

START = 100
HELD = 8
OPENING, CAPTURING = 1, 2


class WorkFailedError(Exception):
    """What the work in a reservation raises."""


@contextmanager
def deaf_to_commit(database: ConnectionParameters) -> Generator[Settings]:
    """Settings of a connection on which the answer to a COMMIT is lost."""
    with deaf_proxy(database) as port:
        update = {"database_host": "127.0.0.1", "database_port": str(port)}
        yield get_settings().model_copy(update=update)


@contextmanager
def losing_commit(database: ConnectionParameters, number: int) -> Generator[Callable[[], Session]]:
    """Makes sessions; what that of this number commits is committed, and its answer lost."""
    with deaf_to_commit(database) as settings:
        engine = build_engine(settings)
        made = itertools.count(1)
        yield lambda: sessionmaker(engine)() if next(made) == number else SessionLocal()
        engine.dispose()


@asynccontextmanager
async def losing_commit_async(
    database: ConnectionParameters, number: int
) -> AsyncGenerator[Callable[[], AsyncSession]]:
    """The same for async code."""
    with deaf_to_commit(database) as settings:
        engine = build_async_engine(settings)
        made = itertools.count(1)
        yield lambda: async_sessionmaker(engine)() if next(made) == number else AsyncSessionLocal()
        await engine.dispose()


@pytest.mark.parametrize("lost", [OPENING, CAPTURING])
def test_a_commit_whose_answer_is_lost_holds_nothing_up(
    fresh_database: ConnectionParameters, lost: int
) -> None:
    """The error is raised; what was opened is given back, what was captured is known as charged."""
    [who] = make_users(START)
    begun: list[Reservation] = []
    with (
        losing_commit(fresh_database, lost) as session_factory,
        pytest.raises(RetryableDatabaseError),
        reserve(session_factory, who, HELD, key="job") as held,
    ):
        begun.append(held)
    assert [each.state for each in begun] == ([] if lost == OPENING else ["captured"])
    assert open_holds(who) == 0
    assert balances([who]) == [START if lost == OPENING else START - HELD]


@pytest.mark.parametrize("lost", [OPENING, CAPTURING])
async def test_a_commit_whose_answer_is_lost_holds_nothing_up_async(
    fresh_database: ConnectionParameters, lost: int
) -> None:
    """The same for async code."""
    [who] = make_users(START)
    begun: list[Reservation] = []
    async with losing_commit_async(fresh_database, lost) as session_factory:
        with pytest.raises(RetryableDatabaseError):
            async with reserve_async(session_factory, who, HELD, key="job") as held:
                begun.append(held)
    assert [each.state for each in begun] == ([] if lost == OPENING else ["captured"])
    assert open_holds(who) == 0
    assert balances([who]) == [START if lost == OPENING else START - HELD]


def fail(*_: Any, **__: Any) -> None:
    """A passing condition of the database."""
    raise DatabaseBusy


def test_a_capture_that_fails_gives_the_credits_back(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its error is raised: the work is not paid for, and whoever did it knows."""
    assert fresh_database
    [who] = make_users(START)
    monkeypatch.setattr(ledger, "capture", fail)
    with pytest.raises(DatabaseBusy), reserve(SessionLocal, who, HELD, key="job") as held:
        pass
    assert held.state is ReservationState.RELEASED
    assert open_holds(who) == 0
    assert balances([who]) == [START]


async def test_a_capture_that_fails_under_a_cancellation_gives_the_credits_back(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the task ends with is its cancellation, caused by that error."""
    assert fresh_database
    [who] = make_users(START)
    held = None

    def cancel_and_fail(*_: Any, **__: Any) -> None:
        task.cancel()
        raise DatabaseBusy

    async def work() -> None:
        nonlocal held
        async with reserve_async(AsyncSessionLocal, who, HELD, key="job") as held:
            pass

    monkeypatch.setattr(ledger, "capture", cancel_and_fail)
    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await task
    assert isinstance(cancelled.value.__cause__, DatabaseBusy)
    assert held is not None
    assert held.state is ReservationState.RELEASED
    assert open_holds(who) == 0
    assert balances([who]) == [START]


async def test_what_cannot_be_given_back_is_logged_and_hides_no_error(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sync and async alike: the block's own exception is raised, and the hold is known as open."""
    assert fresh_database
    [who] = make_users(START)
    begun: list[Reservation] = []
    monkeypatch.setattr(ledger, "release", fail)

    def work() -> None:
        with reserve(SessionLocal, who, HELD, key="1") as held:
            begun.append(held)
            raise WorkFailedError

    async def work_async() -> None:
        async with reserve_async(AsyncSessionLocal, who, HELD, key="2") as held:
            begun.append(held)
            raise WorkFailedError

    with capture_logs() as logs:
        with pytest.raises(WorkFailedError):
            work()
        with pytest.raises(WorkFailedError):
            await work_async()
    assert [each["error_type"] for each in logs] == ["DATABASE_BUSY"] * 2
    assert [each.state for each in begun] == ["open", "open"]
    assert open_holds(who) == 2
    assert balances([who]) == [START - 2 * HELD]


async def test_work_that_was_charged_before_is_told_so(
    fresh_database: ConnectionParameters,
) -> None:
    """From the block's first line, sync and async, with what was charged; not work that failed."""
    assert fresh_database
    [who] = make_users(START)
    with pytest.raises(WorkFailedError), reserve(SessionLocal, who, HELD, key="job") as held:
        raise WorkFailedError
    found: list[tuple[bool, str, int]] = []
    for used in (3, 5, 0):
        with reserve(SessionLocal, who, HELD, key="job") as held:
            found.append((held.replayed, held.state, held.used))
            held.used = used
        async with reserve_async(AsyncSessionLocal, who, HELD, key="job") as held:
            found.append((held.replayed, held.state, held.used))
        assert balances([who]) == [START - 3]
    assert found == [(False, "open", HELD), *5 * [(True, "captured", 3)]]
    with pytest.raises(WorkFailedError), reserve(SessionLocal, who, HELD, key="job") as held:
        raise WorkFailedError
    assert held.state is ReservationState.CAPTURED
    assert balances([who]) == [START - 3]
    assert open_holds(who) == 0


async def test_of_two_at_once_with_a_key_the_one_that_is_not_charged_is_told_so(
    fresh_database: ConnectionParameters,
) -> None:
    """Both did the work; the later finds `replayed` after its block."""
    assert fresh_database
    [who] = make_users(START)
    with reserve(SessionLocal, who, HELD, key="job") as later:
        with reserve(SessionLocal, who, HELD, key="job") as earlier:
            earlier.used = 3
        assert (earlier.replayed, later.replayed) == (False, False)
        later.used = 5
    assert (later.replayed, later.state) == (True, "captured")
    assert balances([who]) == [START - 3]


@pytest.mark.parametrize("is_charged", [False, True])
async def test_a_time_out_is_told_what_became_of_the_credits(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch, *, is_charged: bool
) -> None:
    """One that comes while the work is charged finds it charged; an earlier one, given back."""
    assert fresh_database
    [who] = make_users(START)
    held = None
    capture = ledger.capture

    def end_time_and_capture(*arguments: Any, **named: Any) -> Any:
        limit.reschedule(0)
        return capture(*arguments, **named)

    async def work() -> None:
        nonlocal held
        async with limit, reserve_async(AsyncSessionLocal, who, HELD, key="job") as held:
            if not is_charged:
                limit.reschedule(0)
                await asyncio.Event().wait()

    monkeypatch.setattr(ledger, "capture", end_time_and_capture)
    limit = asyncio.timeout(None)
    with pytest.raises(TimeoutError):
        await work()
    assert held is not None
    expected = ReservationState.CAPTURED if is_charged else ReservationState.RELEASED
    assert held.state is expected
    assert balances([who]) == [START - HELD if is_charged else START]
