"""Reservations cancelled at every moment: the work is charged once, or nothing stays held."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, NullPool, event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from src.common.async_database import AsyncSessionLocal
from src.common.credits.reservation import Reservation, reserve, reserve_async
from src.common.postgres.engines import ASYNC_DRIVER, build_engine, database_url
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.credits.committed import balances, make_users, open_holds
from tests.credits.engine.cancelling import Cancel, cancelled_after, run_in_a_loop_that_ends_after

START = 100_000
HELD = 8
USED = 5


class Works:
    """The same work again and again, each time with a key of its own, and what became of it."""

    def __init__(self, who: uuid.UUID, session_factory: Callable[[], AsyncSession]) -> None:
        self._who = who
        self._session_factory = session_factory
        self._times = 0
        self._held: Reservation | None = None
        self._is_done = False
        self.found: Counter[str] = Counter()

    async def work(self) -> None:
        """Done in a few steps."""
        key = self._next_key()
        async with reserve_async(self._session_factory, self._who, HELD, key=key) as self._held:
            for _ in range(5):
                await asyncio.sleep(0)
            self._held.used = USED
            self._is_done = True

    def work_in(self, session_factory: Callable[[], Session]) -> None:
        """The same for sync code."""
        key = self._next_key()
        with reserve(session_factory, self._who, HELD, key=key) as self._held:
            with session_factory() as session:
                session.execute(text("SELECT 1"))
            self._held.used = USED
            self._is_done = True

    def _next_key(self) -> str:
        self._times += 1
        self._held, self._is_done = None, False
        return f"job-{self._times}"

    def note(self) -> None:
        """A charge is work that was done."""
        state = "not begun" if self._held is None else str(self._held.state)
        self.found[state] += 1
        assert self._is_done == (state == "captured")

    def check(self) -> None:
        """Each was charged or given back, and said so."""
        assert {*self.found} == {"not begun", "released", "captured"}
        assert open_holds(self._who) == 0
        assert balances([self._who]) == [START - USED * self.found["captured"]]
        assert self.found["captured"] > 1  # the last was not cancelled at all


def new_connections() -> Callable[[], AsyncSession]:
    """Sessions that connect anew each time."""
    engine = create_async_engine(database_url(get_settings(), ASYNC_DRIVER), poolclass=NullPool)
    return async_sessionmaker(engine)


@pytest.mark.parametrize("cancel", Cancel)
async def test_cancelled_at_any_moment_it_is_charged_or_given_back(
    fresh_database: ConnectionParameters, cancel: Cancel
) -> None:
    """And `state` says which: no hold is left open, and every charge is of work that was done."""
    assert fresh_database
    [who] = make_users(START)
    works = Works(who, AsyncSessionLocal)
    steps = 1
    while await cancelled_after(steps, cancel, works.work):
        works.note()
        steps += 1
    works.note()
    works.check()


def test_a_loop_that_ends_at_any_moment_leaves_no_hold(
    fresh_database: ConnectionParameters,
) -> None:
    """Whatever was under way as the program's `main` returned is charged or given back."""
    assert fresh_database
    [who] = make_users(START)
    works = Works(who, new_connections())
    steps = 1
    while run_in_a_loop_that_ends_after(steps, works.work):
        works.note()
        steps += 1
    works.note()
    works.check()


def interrupt_after(engine: Engine, steps: int) -> Callable[[], bool]:
    """Have Ctrl-C pressed once, before or after a statement, a COMMIT or a ROLLBACK.

    The function that comes back says whether it was.
    """
    taken = 0

    def step(*_: object) -> None:
        nonlocal taken
        taken += 1
        if taken == steps:
            raise KeyboardInterrupt

    def with_steps(end: Callable[[Any], None]) -> Callable[[Any], None]:
        def end_with_steps(connection: Any) -> None:
            step()
            end(connection)
            step()

        return end_with_steps

    event.listen(engine, "before_cursor_execute", step)
    event.listen(engine, "after_cursor_execute", step)
    dialect: Any = engine.dialect
    dialect.do_commit = with_steps(dialect.do_commit)
    dialect.do_rollback = with_steps(dialect.do_rollback)
    return lambda: taken >= steps


def test_interrupted_at_any_moment_it_is_charged_or_given_back(
    fresh_database: ConnectionParameters,
) -> None:
    """As for async code, where a signal's handler raises, such as that of Ctrl-C."""
    assert fresh_database
    [who] = make_users(START)
    works = Works(who, AsyncSessionLocal)
    steps, is_interrupted = 0, True
    while is_interrupted:
        steps += 1
        engine = build_engine(get_settings())
        was_interrupted = interrupt_after(engine, steps)
        try:
            works.work_in(sessionmaker(engine))
        except KeyboardInterrupt:
            assert was_interrupted()
        is_interrupted = was_interrupted()
        engine.dispose()
        works.note()
    works.check()
