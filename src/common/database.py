"""Sync access to the database: `engine`, `SessionLocal`, `get_db`, `init_db`.

The names are those of the document (docs/database-architecture.md). Importing this module reads no
setting and connects to nothing: `engine` and `DATABASE_URL` are made from the settings at first
use. It also installs the ledger's listeners, so that every session of the process keeps the books.

`Base` is there for `from src.common.database import Base`, with every table in its metadata.
"""

import os
from collections.abc import Callable, Generator
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import URL, Engine
from sqlalchemy.orm import Session, sessionmaker
from tenacity import Retrying

from src.common.credits import operations as ledger
from src.common.postgres.disposal import dispose
from src.common.postgres.engines import build_engine, database_url, warn_if_pools_exceed_server
from src.common.postgres.retries import RETRY_POLICY
from src.common.purchases.waiting_reversals import adopt_reversals_of
from src.common.settings import Settings, get_settings
from src.common.sharding.listeners import keep_directory
from src.common.sharding.refusals import refuse_other_division

if TYPE_CHECKING:
    from src.common.models import Base

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
    "read_from_database",
    "run_in_database_transaction",
]

T = TypeVar("T")


class _State:
    lock = Lock()
    engine: Engine | None = None
    settings: Settings | None = None


def get_engine() -> Engine:
    """The process's one sync engine, built from the settings at the first call.

    While the settings stay the same it is the same object, also after `dispose_db`. So the process
    has one pool, whoever imported `engine` and when.

    Raises:
        SettingsError: The settings name no database, or are wrong.
    """
    with _State.lock:
        settings = get_settings()
        is_known = _State.settings is settings or _State.settings == settings  # fields take long
        if _State.engine is None or not is_known:
            if _State.engine is not None:
                dispose(_State.engine)
            _State.engine, _State.settings = build_engine(settings), settings
            keep_directory(settings)
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
    if name == "Base":
        from src.common.models import Base

        return Base
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
    """Connect once, so that a server that cannot be reached is an error at the start.

    Logs a warning where the pools of all processes may open more connections than the server
    allows. Creates no tables: migrations do that.

    Raises:
        DatabaseBusy: The server cannot be reached.
        SettingsError: The settings name no database, or one that is not as SHARDING says.
    """
    with get_engine().connect() as connection:
        warn_if_pools_exceed_server(connection, get_settings())
        refuse_other_division(connection, get_settings())


def dispose_db() -> None:
    """Close the engine's connections. The next use opens new ones, from the settings of then.

    Sessions and names imported before keep working. A connection that another thread's session is
    using is closed once it is returned.
    """
    with _State.lock:
        if _State.engine is not None:
            dispose(_State.engine)


def run_in_database_transaction(work: Callable[[Session], T]) -> T:
    """Run `work` in one database transaction, commit it, and return what `work` returned.

    What it wrote, and what it found, is then as durable as the server's settings ask: with
    synchronous standbys it is on them.

    After a deadlock, a serialization failure or a stale prepared statement `work` is run again from
    the start, at most seven times in all, after waits of up to a second. So it must have no effect
    outside its session. After a lost connection it is not run again: its COMMIT may have arrived.

    Args:
        work: Called with the session; it does not commit.

    Raises:
        RetryableDatabaseError: The last try failed too, or another would not help; or the standbys
            have not confirmed it. Then it may have been committed all the same.
        Exception: What `work` raises; nothing was committed.
    """

    def attempt() -> T:
        with SessionLocal.begin() as session:
            return work(session)

    return Retrying(**RETRY_POLICY)(attempt)


def read_from_database(work: Callable[[Session], T]) -> T:
    """Run `work`, which only reads, in one database transaction, and return what it returned.

    For reports of what there is at this moment. No standby is waited for, so a failover may take
    back what was found. An answer that acknowledges something comes from
    `run_in_database_transaction`. Whatever `work` writes is rolled back.

    Raises:
        RetryableDatabaseError: The last try failed too, or another would not help.
        Exception: What `work` raises.
    """

    def attempt() -> T:
        with SessionLocal() as session:
            return work(session)

    return Retrying(**RETRY_POLICY)(attempt)
