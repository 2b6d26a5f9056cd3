"""The sync side: `engine`, `SessionLocal`, `get_db`, `init_db`, as the document uses them.

`engine` and `DATABASE_URL` are made from the settings at first use, so importing this module reads
nothing and connects to nothing. `Base` is re-exported for `from src.common.database import Base`.
"""

import os
from collections.abc import Callable, Generator
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import URL, Engine, event
from sqlalchemy.orm import Session, sessionmaker
from tenacity import Retrying

from src.common.credits import operations as ledger
from src.common.models import Base
from src.common.postgres.engines import build_engine, database_url, warn_if_pools_exceed_server
from src.common.postgres.retries import RETRY_POLICY
from src.common.purchases.money_back import adopt_reversals_of
from src.common.settings import Settings, get_settings

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

    DATABASE_URL: URL
    engine: Engine

ledger.install(adopt_reversals_of)

__all__ = [
    "DATABASE_URL",
    "Base",
    "SessionLocal",
    "dispose_db",
    "engine",
    "get_db",
    "get_engine",
    "init_db",
    "run_in_database_transaction",
]

T = TypeVar("T")


class _State:
    lock = Lock()
    engine: Engine | None = None
    settings: Settings | None = None


def get_engine() -> Engine:
    """The process's one sync engine, built from the settings at the first call.

    The same object for as long as the settings are the same, disposed or not, so that a name
    imported once never means a second pool.
    """
    with _State.lock:
        settings = get_settings()
        if _State.engine is None or _State.settings != settings:
            if _State.engine is not None:
                _State.engine.dispose()
            _State.engine, _State.settings = build_engine(settings), settings
        return _State.engine


def _renew_lock() -> None:
    """In a forked child: another thread of the parent's may have held it."""
    _State.lock = Lock()


os.register_at_fork(after_in_child=_renew_lock)


def __getattr__(name: str) -> Any:
    if name == "engine":
        return get_engine()
    if name == "DATABASE_URL":
        return database_url(get_settings())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _SessionMaker(sessionmaker[Session]):
    """A session maker that takes the process's engine unless it was given another bind."""

    def __reduce__(self) -> str:
        """By name, for another process: an engine stays in its own."""
        return "SessionLocal"

    def __call__(self, **local_kw: Any) -> Session:
        if self.kw.get("bind") is None and "bind" not in local_kw:
            local_kw["bind"] = get_engine()
        return super().__call__(**local_kw)


SessionLocal = _SessionMaker(expire_on_commit=False)
"""Makes sessions: `with SessionLocal() as db:` or `with SessionLocal.begin() as db:`."""


def get_db() -> Generator[Session, None, None]:
    """A session for one request, closed after it: `db: Session = Depends(get_db)`.

    Uncommitted changes are rolled back when it closes.
    """
    with SessionLocal() as db:
        yield db


def init_db() -> None:
    """Make sure that the sync engine can reach the database, and that the pools fit the server.

    Raises:
        DatabaseBusy: the server cannot be reached.
        SettingsError: the settings name no database.
    """
    with get_engine().connect() as connection:
        warn_if_pools_exceed_server(connection, get_settings())


def dispose_db() -> None:
    """Close the engine's connections; the next use opens new ones, from the settings as they are.

    Sessions and names imported before keep working; a connection that a session of another thread
    has now is closed once that returns it.
    """
    with _State.lock:
        if _State.engine is not None:
            left = _State.engine.pool
            _State.engine.dispose()
            event.listen(left, "checkin", _close)


def _close(_connection: "DBAPIConnection | None", record: "ConnectionPoolEntry") -> None:
    """Instead of keeping it in a pool that nobody has any more, until that is collected."""
    record.invalidate()


def run_in_database_transaction(work: Callable[[Session], T]) -> T:
    """Run `work` in one database transaction and commit it.

    A deadlock, a serialization failure or a stale prepared statement runs `work` again from the
    start, a few times, so `work` must have no effect outside its session.

    Raises:
        RetryableDatabaseError: still failing after the last attempt, or not worth another.
    """

    def attempt() -> T:
        with SessionLocal.begin() as session:
            return work(session)

    return Retrying(**RETRY_POLICY)(attempt)
