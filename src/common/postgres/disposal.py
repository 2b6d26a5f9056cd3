"""Closes an engine's connections: those that are idle now, and the others once they are returned.

SQLAlchemy keeps a connection that comes back later in the pool that nobody has any more, until that
is collected. asyncpg's can then be cut off only, with a warning in whatever runs at that moment.
"""

from typing import TYPE_CHECKING, Protocol

from sqlalchemy import event

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection


def dispose(engine: "Engine") -> None:
    """Close its connections. The next use opens new ones."""
    left = engine.pool
    engine.dispose()
    event.listen(left, "checkin", _close)
    left.dispose()  # of what another thread has returned since


class Connections(Protocol):
    """An async engine, or what stands before one."""

    @property
    def pool(self) -> "Pool":
        """Where its connections are."""
        ...

    async def raw_connection(self) -> "PoolProxiedConnection":
        """One of its connections."""
        ...

    async def dispose(self) -> None:
        """Close those that are idle, and begin with a new pool."""
        ...


async def dispose_async(engine: Connections) -> None:
    """The same, in the event loop that used it."""
    left = engine.pool
    await engine.dispose()
    event.listen(left, "checkin", _close)


def abandon_async(engine: "AsyncEngine") -> None:
    """The same for whoever cannot wait: they are cut off, which the server takes for an end.

    An engine that others' settings replace has nobody who would close it in order.
    """
    left = engine.sync_engine
    left.dialect.do_close = left.dialect.do_terminate  # type: ignore[method-assign]  # in order is to wait
    dispose(left)


def _close(_connection: "DBAPIConnection | None", record: "ConnectionPoolEntry") -> None:
    record.invalidate()
