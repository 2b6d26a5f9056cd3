"""Chapter "Row-Level Locking": real second connections, and the race the document is about."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError

from src.common.async_database import AsyncSessionLocal, get_async_db
from src.common.database import SessionLocal
from src.common.models.user import User
from src.common.postgres.errors import RetryableDatabaseError, sqlstate_of
from src.local_postgres import ConnectionParameters
from tests.document.document import run
from tests.fixtures.api import PATIENCE_SECONDS
from tests.models.examples import a_user

CONCURRENT = 25
LOCK_NOT_AVAILABLE = "55P03"
BLOCKED = text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@pytest.fixture
def user_id(fresh_database: ConnectionParameters) -> uuid.UUID:
    """A user whom every connection can see."""
    assert fresh_database
    with SessionLocal.begin() as db:
        person = a_user()
        db.add(person)
    return person.user_id


@pytest.fixture
async def unlock(user_id: uuid.UUID) -> AsyncGenerator[Callable[[], Coroutine[Any, Any, None]]]:
    """Hold the user's row as the document does and add 100 credits; called, it commits them."""
    async with get_async_db() as db:
        locked = select(User).with_for_update().where(User.user_id == user_id)
        user = (await db.execute(locked)).scalar_one()
        user.credits_balance += 100
        await db.flush()
        yield db.commit


def balance_of(user_id: uuid.UUID) -> int:
    """The user's committed balance."""
    with SessionLocal() as db:
        return db.get_one(User, user_id).credits_balance


async def until_blocked() -> None:
    """Return as soon as some connection to this database waits for a lock."""
    async with asyncio.timeout(PATIENCE_SECONDS), AsyncSessionLocal() as db:
        while not await db.scalar(BLOCKED):
            await db.rollback()


async def test_a_second_writer_waits_and_then_sees_the_first_one_s_change(
    user_id: uuid.UUID, unlock: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """`with_for_update()` waits for the lock and reads the balance after it has it."""
    update_credits = run("update_credits", UUID=uuid.UUID)["update_credits"]
    second = asyncio.create_task(update_credits(user_id, 5))
    await until_blocked()
    assert not second.done()
    assert balance_of(user_id) == 0
    await unlock()
    await second
    assert balance_of(user_id) == 105


@pytest.mark.usefixtures("unlock")
async def test_a_locked_row_can_be_read(user_id: uuid.UUID) -> None:
    """A plain SELECT does not wait for the lock and sees the last committed balance."""
    assert balance_of(user_id) == 0


@pytest.mark.usefixtures("unlock")
async def test_skip_locked_passes_over_the_row(user_id: uuid.UUID) -> None:
    """`with_for_update(skip_locked=True)` finds nobody, at once, on either driver."""
    wanted = select(User).with_for_update(skip_locked=True).where(User.user_id == user_id)
    with SessionLocal() as db:
        assert db.scalars(wanted).all() == []
    async with get_async_db() as async_db:
        assert (await async_db.scalars(wanted)).all() == []


@pytest.mark.usefixtures("unlock")
async def test_nowait_fails_immediately(user_id: uuid.UUID) -> None:
    """`with_for_update(nowait=True)` is refused, as the same retryable error on either driver."""
    wanted = select(User).with_for_update(nowait=True).where(User.user_id == user_id)
    with SessionLocal() as db, pytest.raises(OperationalError) as sync_error:
        db.scalars(wanted)
    async with get_async_db() as async_db:
        with pytest.raises(OperationalError) as async_error:
            await async_db.scalars(wanted)
    for error in (sync_error.value, async_error.value):
        assert isinstance(error, RetryableDatabaseError)
        assert sqlstate_of(error) == LOCK_NOT_AVAILABLE


async def test_skip_locked_and_nowait_take_a_free_row(user_id: uuid.UUID) -> None:
    """Where nobody holds the lock, all three modes find the row."""
    user = select(User).where(User.user_id == user_id)
    modes = (
        user.with_for_update(),
        user.with_for_update(skip_locked=True),
        user.with_for_update(nowait=True),
    )
    for wanted in modes:
        async with get_async_db() as db, db.begin():
            assert (await db.scalars(wanted)).one().user_id == user_id


async def test_concurrent_async_updates_lose_nothing(user_id: uuid.UUID) -> None:
    """Twenty-five of the document's update_credits at once add exactly twenty-five."""
    update_credits = run("update_credits", UUID=uuid.UUID)["update_credits"]
    await asyncio.gather(*(update_credits(user_id, 1) for _ in range(CONCURRENT)))
    assert balance_of(user_id) == CONCURRENT


def test_concurrent_sync_updates_lose_nothing(user_id: uuid.UUID) -> None:
    """Twenty-five threads, all connected before the first may lock, add exactly twenty-five."""
    ready = Barrier(CONCURRENT, timeout=600)

    def add_one(_: int) -> None:
        with SessionLocal.begin() as db:
            db.connection()
            ready.wait()
            user = db.query(User).filter(User.user_id == user_id).with_for_update().one()
            user.credits_balance += 1

    with ThreadPoolExecutor(CONCURRENT) as threads:
        list(threads.map(add_one, range(CONCURRENT)))
    assert balance_of(user_id) == CONCURRENT
