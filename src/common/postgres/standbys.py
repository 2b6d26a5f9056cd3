"""Refuses connections to a standby, whose answers may lag.

After a failover the old primary may come back as a standby under an address that pooled connections
still lead to. The server tells each client whether it is one, at the start and whenever that
changes (`in_hot_standby`, PostgreSQL 14 and later), so it costs nothing to look each time.
"""

from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import event
from sqlalchemy.exc import InvalidatePoolError

from src.common.postgres.errors import READ_ONLY, STANDBY, RetryableDatabaseError

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

_WAS_USED = "flashslides_was_used"


def is_standby(raw: Any) -> bool:
    """Whether the server of this connection of psycopg's, or of SQLAlchemy's asyncpg, said so."""
    if isinstance(raw, psycopg.Connection):
        return raw.pgconn.parameter_status(b"in_hot_standby") == b"on"
    reported = raw.driver_connection.get_settings()
    return getattr(reported, "in_hot_standby", "off") == "on"


def refuse_standbys(engine: "Engine") -> None:
    """Have this engine's pool give nobody a connection to a standby.

    One that was used before is dropped with all the others, and a new one is opened, which may
    reach the new primary. If that leads to a standby as well, the caller is to try later.
    """

    def check(
        raw: "DBAPIConnection", entry: "ConnectionPoolEntry", _proxy: "PoolProxiedConnection"
    ) -> None:
        if is_standby(raw):
            if entry.info.pop(_WAS_USED, False):
                raise InvalidatePoolError
            raise RetryableDatabaseError(READ_ONLY, None, STANDBY)
        entry.info[_WAS_USED] = True

    event.listen(engine, "checkout", check)
