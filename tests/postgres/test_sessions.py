"""Sessions and engines of the process: what they undo, what they keep, what they leave behind."""

import asyncio
import gc
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)

import asyncpg
import psycopg
import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from src.common import async_database, async_replicas, database
from src.common.async_database import AsyncSessionLocal, get_async_db
from src.common.credits.engine.connection import EngineConnection
from src.common.database import SessionLocal, get_db
from src.common.models import User
from src.common.postgres.disposal import dispose_async
from src.common.postgres.engines import PLAIN_BEGIN, build_lanes_engine
from src.common.postgres.shared_statements import SharedStatement
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.postgres.drivers import open_connection, until

OURS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'flashslides'"
)


@pytest.fixture
def observer(fresh_database: ConnectionParameters) -> Generator[psycopg.Connection]:
    """A look at the database from outside."""
    with open_connection(fresh_database) as connection:
        yield connection


def _count(observer: psycopg.Connection, query: str = "SELECT count(*) FROM users") -> int:
    row = observer.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def _user(email: str = "ada@example.com") -> User:
    return User(email=email, password_hash="managed_externally")


def test_get_db_rolls_back_what_was_not_committed(observer: psycopg.Connection) -> None:
    """A request that ends without commit, or with an error, leaves nothing."""
    with contextmanager(get_db)() as db:
        db.add(_user())
        db.flush()

    def fail() -> None:
        with contextmanager(get_db)() as db:
            db.add(_user())
            db.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert _count(observer) == 0
    with contextmanager(get_db)() as db:
        db.add(_user())
        db.commit()
    assert _count(observer) == 1


async def test_get_async_db_rolls_back_what_was_not_committed(
    observer: psycopg.Connection,
) -> None:
    """The same for the async session: only a commit, or the end of `db.begin()`, stays."""
    async with get_async_db() as db:
        db.add(_user())
        await db.flush()

    async def fail() -> None:
        async with get_async_db() as db, db.begin():
            db.add(_user())
            await db.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert _count(observer) == 0
    async with get_async_db() as db, db.begin():
        db.add(_user())
    assert _count(observer) == 1


def test_session_local_rolls_back_or_commits_as_its_block_ends(
    observer: psycopg.Connection,
) -> None:
    """`SessionLocal()` undoes what was not committed; `SessionLocal.begin()` commits."""
    with SessionLocal() as db:
        db.add(_user())
        db.flush()
    assert _count(observer) == 0
    with SessionLocal.begin() as db:
        db.add(_user())
    assert _count(observer) == 1


async def test_a_loaded_user_is_readable_after_commit(observer: psycopg.Connection) -> None:
    """`expire_on_commit=False` on both sides: no attribute needs the session again."""
    with SessionLocal() as db:
        user = _user()
        db.add(user)
        db.commit()
    async with AsyncSessionLocal() as async_db, async_db.begin():
        same = (await async_db.execute(select(User))).scalar_one()
    assert _count(observer) == 1
    assert (user.email, user.created_at) == (same.email, same.created_at)


def test_no_connection_is_held_while_no_request_runs(observer: psycopg.Connection) -> None:
    """A hundred requests in a row use one connection, and none is left in a transaction."""
    assert observer
    for _ in range(100):
        with contextmanager(get_db)() as db:
            db.execute(text("SELECT 1"))
    assert _count(observer, OURS) == 1
    assert _count(observer, OURS + " AND state <> 'idle'") == 0


async def test_disposed_engines_leave_no_connection_behind(
    observer: psycopg.Connection,
) -> None:
    """After dispose pg_stat_activity knows nothing of us, however often we came back."""
    for _ in range(2):
        with SessionLocal() as db:
            db.execute(text("SELECT 1"))
        async with get_async_db() as async_db:
            await async_db.execute(text("SELECT 1"))
        assert _count(observer, OURS) == 2
        database.dispose_db()
        await async_database.dispose_async_db()
        await asyncio.to_thread(until, observer, OURS.replace("count(*)", "count(*) = 0"))


def test_a_connection_in_use_at_dispose_is_closed_when_it_is_returned(
    observer: psycopg.Connection,
) -> None:
    """Another thread's session works on; nothing waits for a collector to close it."""
    gc.disable()
    try:
        with SessionLocal() as db:
            db.execute(text("SELECT 1"))
            database.dispose_db()
            assert db.execute(text("SELECT 1")).scalar_one() == 1
            assert _count(observer, OURS) == 1
        until(observer, OURS.replace("count(*)", "count(*) = 0"))
    finally:
        gc.enable()


@asynccontextmanager
async def _session() -> AsyncGenerator[None]:
    async with get_async_db() as db:
        await db.execute(text("SELECT 1"))
        yield
        assert (await db.execute(text("SELECT 1"))).scalar_one() == 1


class _Question(SharedStatement[str, str]):
    """Its statement is on its way until somebody sets `may_end`."""

    def __init__(self) -> None:
        super().__init__(async_database.get_async_engine)
        self.is_on_its_way = asyncio.Event()
        self.may_end = asyncio.Event()

    async def found(self, connection: asyncpg.Connection, asked: Sequence[str]) -> dict[str, str]:
        await connection.fetch("SELECT 1")
        self.is_on_its_way.set()
        await self.may_end.wait()
        return dict.fromkeys(asked, "")


@asynccontextmanager
async def _question_nobody_waits_for() -> AsyncGenerator[None]:
    question = _Question()
    asking = asyncio.create_task(question.read(""))
    await question.is_on_its_way.wait()
    asking.cancel()
    yield
    question.may_end.set()
    await question.read("")


@asynccontextmanager
async def _lane() -> AsyncGenerator[None]:
    connections = build_lanes_engine(get_settings())
    lane, silent = (EngineConnection(connections, PLAIN_BEGIN) for _ in range(2))
    await lane.transact(lambda connection: connection.fetch("SELECT 1"))
    await silent.transact(lambda connection: connection.fetch("SELECT 1"))
    silent.drop()
    await dispose_async(connections)  # as it does with all that may have fallen silent
    yield
    lane.close()


@pytest.mark.parametrize("use", [_session, _question_nobody_waits_for, _lane])
async def test_an_async_connection_in_use_at_dispose_is_closed_when_it_is_returned(
    use: Callable[[], AbstractAsyncContextManager[None]], observer: psycopg.Connection
) -> None:
    """A collector would warn of it, in whatever runs at that moment."""
    gc.disable()
    try:
        async with use():
            await async_database.dispose_async_db()
            # The server may still be ending those that were idle.
            await asyncio.to_thread(until, observer, OURS.replace("count(*)", "count(*) = 1"))
        await async_database.dispose_async_db()
        await asyncio.to_thread(until, observer, OURS.replace("count(*)", "count(*) = 0"))
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "engine", [async_database.get_async_engine, async_replicas.get_async_replica_engine]
)
@pytest.mark.parametrize("is_in_use", [False, True])
async def test_async_connections_of_other_settings_are_closed(
    engine: Callable[[], AsyncEngine],
    is_in_use: bool,  # noqa: FBT001  a parameter of the test
    observer: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At once where they are idle, else when they are returned: as the sync engine's are."""
    monkeypatch.setenv("DATABASE_REPLICA_HOST", get_settings().database_host or "")
    monkeypatch.setenv("DATABASE_REPLICA_PORT", str(get_settings().database_port))
    get_settings.cache_clear()
    gc.disable()
    try:
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(engine().connect())
            await connection.execute(text("SELECT 1"))
            if not is_in_use:
                await stack.aclose()
            assert _count(observer, OURS) == 1
            monkeypatch.setenv("DATABASE_CONNECT_TIMEOUT_SECONDS", "17")
            get_settings.cache_clear()
            engine()
            if is_in_use:
                assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
        await asyncio.to_thread(until, observer, OURS.replace("count(*)", "count(*) = 0"))
    finally:
        gc.enable()


async def test_names_imported_before_dispose_still_work_and_mean_the_one_pool(
    observer: psycopg.Connection,
) -> None:
    """A module that said `from … import engine` shares the pool of who asks after dispose."""
    from src.common.async_database import async_engine
    from src.common.database import engine

    database.dispose_db()
    await async_database.dispose_async_db()
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    with SessionLocal() as db:
        db.execute(text("SELECT 1"))
    async with async_engine.connect() as async_connection:
        await async_connection.execute(text("SELECT 1"))
    async with AsyncSessionLocal() as async_db:
        await async_db.execute(text("SELECT 1"))
    assert database.get_engine() is engine
    assert async_database.get_async_engine() is async_engine
    assert _count(observer, OURS) == 2


async def test_after_dispose_new_settings_count(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engines follow the settings once these are read afresh."""
    assert fresh_database
    database.dispose_db()
    await async_database.dispose_async_db()
    monkeypatch.setenv("DATABASE_APPLICATION_NAME", "another")
    get_settings.cache_clear()
    with SessionLocal() as db:
        assert db.execute(text("SHOW application_name")).scalar_one() == "another"
    async with get_async_db() as async_db:
        assert (await async_db.execute(text("SHOW application_name"))).scalar_one() == "another"
    database.dispose_db()
    await async_database.dispose_async_db()


def test_many_threads_at_the_first_request_build_one_engine(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread is left with a pool of its own that nobody would ever dispose."""
    assert fresh_database
    monkeypatch.setenv("DATABASE_APPLICATION_NAME", "crowd")
    get_settings.cache_clear()
    get_settings()
    crowd = 16
    barrier = threading.Barrier(crowd)

    def build(_: int) -> Engine:
        barrier.wait()
        return database.get_engine()

    with ThreadPoolExecutor(crowd) as threads:
        built = set(threads.map(build, range(crowd)))
    assert len(built) == 1


def test_an_attribute_that_does_not_exist_is_an_attribute_error() -> None:
    """The lazily made names do not swallow typing mistakes."""
    for module in (database, async_database):
        with pytest.raises(AttributeError, match="nonsense"):
            _ = module.nonsense


def test_a_session_given_another_bind_keeps_it(observer: psycopg.Connection) -> None:
    """A test's own connection is used, not the process's engine."""
    with database.get_engine().connect() as connection, SessionLocal(bind=connection) as db:
        db.add(_user())
        db.flush()
        assert isinstance(db, Session)
        assert connection.execute(text("SELECT count(*) FROM users")).scalar_one() == 1
    assert _count(observer) == 0
