"""A COMMIT is answered once what it wrote and what it found is on the standby (decision 0053)."""

import asyncio
import signal
import threading
import uuid
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from src.common.async_database import get_async_db, read_from_async_database
from src.common.database import SessionLocal, read_from_database
from src.common.models.user import User
from src.common.postgres import confirmed_commits
from src.common.postgres.errors import RetryableDatabaseError
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.durability.conftest import Primary
from tests.models.examples import a_user
from tests.postgres.drivers import DRIVERS, Driver, until

pytestmark = pytest.mark.xdist_group("standbys")

WAITS = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')"
USERS = select(func.count()).select_from(User)


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.name)
def driver(request: pytest.FixtureRequest) -> Driver:
    """Psycopg, then asyncpg."""
    assert isinstance(request.param, Driver)
    return request.param


def add(email: str) -> Callable[[Session], None]:
    """Write a user."""

    def work(session: Session) -> None:
        session.add(a_user(email=email))

    return work


def find(email: str) -> Callable[[Session], uuid.UUID]:
    """Find that user, and write nothing."""

    def work(session: Session) -> uuid.UUID:
        return session.scalars(select(User.user_id).where(User.email == email)).one()

    return work


async def test_no_try_is_answered_before_the_standby_has_it(
    driver: Driver, primary: Primary, impatient: ConnectionParameters
) -> None:
    """The first one's row stays locked. Ended by force, it is there, and who finds it waits too."""
    assert impatient
    primary.set_synchronous_commit("on")
    with pytest.raises(RetryableDatabaseError):
        await driver.transact(add("ada@example.com"))
    with primary.admin() as admin:
        assert admin.execute(WAITS).fetchone() == (True,), "its wait was cancelled"
    with pytest.raises(RetryableDatabaseError):  # the row is not there, nor may it be made anew
        await driver.transact(add("ada@example.com"))
    primary.end_who_waits()
    with pytest.raises(RetryableDatabaseError):
        await driver.transact(find("ada@example.com"))
    primary.set_synchronous_commit("local")
    assert await driver.transact(find("ada@example.com"))


async def test_a_duplicate_tells_of_somebody_s_row(
    driver: Driver, primary: Primary, impatient: ConnectionParameters
) -> None:
    """As in the document, where an IntegrityError means that it was done before."""
    assert impatient
    await driver.transact(add("ada@example.com"))
    with pytest.raises(IntegrityError):
        await driver.transact(add("ada@example.com"))
    primary.set_synchronous_commit("on")
    with pytest.raises(RetryableDatabaseError):
        await driver.transact(add("ada@example.com"))
    primary.end_who_waits()
    primary.set_synchronous_commit("local")
    with pytest.raises(IntegrityError):
        await driver.transact(add("ada@example.com"))


async def test_a_report_waits_for_nobody(primary: Primary, impatient: ConnectionParameters) -> None:
    """It says what there is, and is served whatever the standby does."""
    assert impatient
    with SessionLocal.begin() as session:
        session.add(a_user(email="ada@example.com"))
    primary.set_synchronous_commit("on")
    assert await read_from_async_database(find("ada@example.com"))
    assert await asyncio.to_thread(read_from_database, find("ada@example.com"))
    async with get_async_db() as db:
        assert (await db.scalars(USERS)).one() == 1


@pytest.mark.parametrize("messages", ["notice", "error"])
async def test_a_wait_that_somebody_cancels_is_no_answer(
    driver: Driver,
    primary: Primary,
    impatient: ConnectionParameters,
    monkeypatch: pytest.MonkeyPatch,
    messages: str,
) -> None:
    """The server says that it has committed, with a warning: that is not what was asked for.

    Whatever it tells others of this database: we hear of it.
    """
    primary.change("ALTER DATABASE {} SET client_min_messages = {}", impatient.database, messages)
    monkeypatch.setenv("DATABASE_STATEMENT_TIMEOUT_MS", "600000")
    get_settings.cache_clear()
    primary.set_synchronous_commit("on")

    def cancel() -> None:
        with primary.admin() as admin:
            until(admin, WAITS)
            admin.execute(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            )

    canceller = threading.Thread(target=cancel)
    canceller.start()
    with pytest.raises(RetryableDatabaseError, match="not confirmed by the standbys"):
        await driver.transact(add("ada@example.com"))
    canceller.join()
    primary.set_synchronous_commit("local")
    assert await driver.transact(find("ada@example.com")), "the server had it all the same"


async def test_who_is_cancelled_meanwhile_leaves_the_wait_to_the_server(
    primary: Primary, impatient: ConnectionParameters
) -> None:
    """A request that is given up ends its connection; asyncpg would have the wait cancelled."""
    assert impatient
    primary.set_synchronous_commit("on")

    async def write() -> None:
        async with get_async_db() as db, db.begin():
            db.add(a_user(email="ada@example.com"))

    writing = asyncio.create_task(write())
    with primary.admin() as admin:
        await asyncio.to_thread(until, admin, WAITS)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert admin.execute(WAITS).fetchone() == (True,)
        assert await read_from_async_database(lambda session: session.scalars(USERS).one()) == 0


async def test_a_change_of_the_setting_is_noticed(
    driver: Driver,
    primary: Primary,
    impatient: ConnectionParameters,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A connection looks again after a while; within that it believes what it saw."""
    assert impatient
    asked: list[str] = []
    look = confirmed_commits.Confirmation.note

    def note(self: confirmed_commits.Confirmation, *, are_awaited: bool) -> None:
        asked.append("awaited" if are_awaited else "not")
        look(self, are_awaited=are_awaited)

    monkeypatch.setattr(confirmed_commits.Confirmation, "note", note)
    monkeypatch.setattr(confirmed_commits, "LOOK_SECONDS", 600.0)

    def commit(connection: Connection) -> None:
        for _ in range(3):
            connection.execute(text("SELECT 1"))
            connection.commit()

    def commit_awaited(connection: Connection) -> None:
        commit(connection)
        monkeypatch.setattr(confirmed_commits, "LOOK_SECONDS", -1.0)
        primary.set_synchronous_commit("on")
        connection.execute(text("SELECT 1"))
        with pytest.raises(RetryableDatabaseError):
            connection.commit()

    await driver.run(get_settings(), commit_awaited)
    assert asked == ["not", "awaited"]


def test_ctrl_c_leaves_the_wait_to_the_server(
    primary: Primary, impatient: ConnectionParameters
) -> None:
    """A command interrupted in its COMMIT ends; psycopg would have the wait cancelled."""
    assert impatient
    primary.set_synchronous_commit("on")

    def interrupt() -> None:
        with primary.admin() as admin:
            until(admin, WAITS)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt), SessionLocal.begin() as session:
        session.add(a_user(email="ada@example.com"))
    interrupting.join()
    with primary.admin() as admin:
        assert admin.execute(WAITS).fetchone() == (True,)
