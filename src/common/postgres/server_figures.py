"""Figures of the server and its connections, as any role may read them."""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

STATES = ("active", "idle", "idle in transaction", "other")
"""`other` are those whose state the server tells only to its superusers, and the rare ones."""

_LIMITS = text(
    "SELECT current_setting('max_connections')::int"
    " - current_setting('superuser_reserved_connections')::int"
    " - coalesce(current_setting('reserved_connections', true), '0')::int,"
    " datname, deadlocks FROM pg_stat_database WHERE datname = current_database()"
)
_CONNECTIONS = text(
    "SELECT CASE WHEN state IN ('active', 'idle') THEN state"
    " WHEN state LIKE 'idle in transaction%' THEN 'idle in transaction' ELSE 'other' END,"
    " count(*), coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)"
    # A backup is open for as long as it takes, and says so by its name.
    " FILTER (WHERE application_name NOT IN ('pg_dump', 'pg_dumpall'))), 0)::float"
    " FROM pg_stat_activity"
    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() GROUP BY 1"
)


class ServerFigures(NamedTuple):
    """What the server says of itself."""

    connections: Mapping[str, int]
    """Connections of clients to the whole server by state (`STATES`), without the asking one."""
    connections_limit: int
    """How many there may be, without those reserved."""
    oldest_transaction_seconds: float
    """Age of the oldest open database transaction of a client that this role may look at, but of
    `pg_dump`'s."""
    database: str
    deadlocks: int
    """In this database since its statistics began."""


def server_figures(session: Session) -> ServerFigures:
    """Read them; nothing is locked and no table is."""
    limit, database, deadlocks = session.execute(_LIMITS).one()
    rows = session.execute(_CONNECTIONS).all()
    return ServerFigures(
        connections=dict.fromkeys(STATES, 0) | {state: number for state, number, _ in rows},
        connections_limit=limit,
        oldest_transaction_seconds=max((age for _, _, age in rows), default=0.0),
        database=database,
        deadlocks=deadlocks,
    )
