"""Async access to the database: `async_engine`, `get_async_db`, `init_async_db`.

The names are those of the document (docs/database-architecture.md). Importing this module reads no
setting and connects to nothing: `async_engine` and `DATABASE_URL_ASYNC` are made from the settings
at first use. It also installs the ledger's listeners, as `src.common.database` does.

Operations are written once, for the sync `Session`. `run_in_async_database_transaction` gives that
code the session inside an `AsyncSession` (`run_sync`).
"""

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session
from tenacity import AsyncRetrying

from src.common.credits import operations as ledger
from src.common.postgres.disposal import abandon_async, dispose_async
from src.common.postgres.engines import (
    ASYNC_DRIVER,
    build_async_engine,
    database_url,
)
from src.common.postgres.retries import RETRY_POLICY
from src.common.purchases.waiting_reversals import adopt_reversals_of
from src.common.settings import Settings, get_settings
from src.common.sharding.listeners import keep_directory

if TYPE_CHECKING:
    DATABASE_URL_ASYNC: URL
    async_engine: AsyncEngine

ledger.install(adopt_reversals_of)

__all__ = [
    "DATABASE_URL_ASYNC",
    "AsyncSessionLocal",
    "async_engine",
    "dispose_async_db",
    "get_async_db",
    "get_async_engine",
    "get_async_session",
    "init_async_db",
    "read_from_async_database",
    "run_in_async_database_transaction",
]

T = TypeVar("T")


class _State:
    lock = Lock()
    engine: AsyncEngine | None = None
    settings: Settings | None = None


def get_async_engine() -> AsyncEngine:
    """The process's one async engine, built from the settings at the first call.

    While the settings stay the same it is the same object. Its connections belong to the event loop
    that used it.

    Raises:
        SettingsError: The settings name no database, or are wrong.
    """
    with _State.lock:
        settings = get_settings()
        is_known = _State.settings is settings or _State.settings == settings  # fields take long
        if _State.engine is None or not is_known:
            if _State.engine is not None:
                abandon_async(_State.engine)
            _State.engine, _State.settings = build_async_engine(settings), settings
            keep_directory(settings)
        return _State.engine


def _renew_lock() -> None:
    """In a forked child: another thread of the parent's may have held it."""
    _State.lock = Lock()


os.register_at_fork(after_in_child=_renew_lock)


def __getattr__(name: str) -> Any:
    if name == "async_engine":
        return get_async_engine()
    if name == "DATABASE_URL_ASYNC":
        return database_url(get_settings(), ASYNC_DRIVER)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _AsyncSessionMaker(async_sessionmaker[AsyncSession]):
    """A session maker that takes the process's engine unless it was given another bind."""

    def __call__(self, **local_kw: Any) -> AsyncSession:
        if self.kw.get("bind") is None and "bind" not in local_kw:
            local_kw["bind"] = get_async_engine()
        return super().__call__(**local_kw)


AsyncSessionLocal = _AsyncSessionMaker(expire_on_commit=False)
"""Makes sessions: `async with AsyncSessionLocal() as db:`."""


@asynccontextmanager
async def get_async_db() -> AsyncGenerator[AsyncSession]:
    """A session, closed at the end of the block; uncommitted changes are rolled back.

    As in the document: `async with get_async_db() as db:` and inside it `async with db.begin():`.
    """
    async with AsyncSessionLocal() as db:
        yield db


async def get_async_session() -> AsyncGenerator[AsyncSession]:
    """A session for one request, closed after it: `db: AsyncSession = Depends(get_async_session)`.

    `get_async_db` is for `async with`: as a dependency it would give the context manager itself.
    Uncommitted changes are rolled back when it closes.
    """
    async with get_async_db() as db:
        yield db


async def init_async_db() -> None:
    """Connect once, so that a server that cannot be reached is an error at the start.

    Raises:
        DatabaseBusy: The server cannot be reached.
        SettingsError: The settings name no database.
    """
    async with get_async_engine().connect() as connection:
        await connection.execute(text("SELECT 1"))


async def dispose_async_db() -> None:
    """Close the engine's connections. The next use opens new ones, from the settings of then.

    Call it in the event loop that used the engine, before that loop ends. A connection that another
    task is using is closed once it is returned.
    """
    if _State.engine is not None:
        await dispose_async(_State.engine)


async def run_in_async_database_transaction(work: Callable[[Session], T]) -> T:
    """As `src.common.database.run_in_database_transaction`, without blocking the event loop.

    Args:
        work: A plain function, called with a sync `Session`: the same one serves both.

    Raises:
        RetryableDatabaseError: The last try failed too, or another would not help; or the standbys
            have not confirmed it.
        Exception: What `work` raises; nothing was committed.
    """

    async def attempt() -> T:
        async with get_async_db() as db, db.begin():
            return await db.run_sync(work)

    return await AsyncRetrying(**RETRY_POLICY)(attempt)


async def read_from_async_database(work: Callable[[Session], T]) -> T:
    """As `src.common.database.read_from_database`, without blocking the event loop.

    Args:
        work: A plain function, called with a sync `Session`: the same one serves both.

    Raises:
        RetryableDatabaseError: The last try failed too, or another would not help.
        Exception: What `work` raises.
    """

    async def attempt() -> T:
        async with get_async_db() as db:
            try:
                return await db.run_sync(work)
            finally:  # not as it closes: a task cancelled there would never return the connection
                db.expunge_all()  # what was read stays as it was read
                await db.rollback()

    return await AsyncRetrying(**RETRY_POLICY)(attempt)
