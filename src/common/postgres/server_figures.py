"""Figures of the server and its connections, as any role may read them."""

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common.postgres.engines import CONNECTIONS_ALLOWED

STATES = ("active", "idle", "idle in transaction", "other")
"""`other` are those whose state the server tells only to its superusers, and the rare ones."""

_LIMITS = text(
    f"SELECT {CONNECTIONS_ALLOWED}, datname, deadlocks, since,"  # noqa: S608  our own words
    " extract(epoch FROM clock_timestamp() - since)::float"
    " FROM pg_stat_database,"
    " LATERAL (SELECT coalesce(stats_reset, pg_postmaster_start_time()) AS since) AS began"
    " WHERE datname = current_database()"
)
_CONNECTIONS = text(
    "SELECT coalesce(application_name, ''),"
    " CASE WHEN state IN ('active', 'idle') THEN state"
    " WHEN state LIKE 'idle in transaction%' THEN 'idle in transaction' ELSE 'other' END,"
    " count(*), coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)"
    # A backup is open for as long as it takes, and says so by its name.
    " FILTER (WHERE application_name NOT IN ('pg_dump', 'pg_dumpall'))), 0)::float"
    " FROM pg_stat_activity"
    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() GROUP BY 1, 2"
)


class ServerFigures(NamedTuple):
    """What the server says of itself."""

    connections_of: Mapping[tuple[str, str], int]
    """Connections of clients to the whole server, without the asking one, by their application's
    name and state (`STATES`)."""
    connections_limit: int
    """How many there may be, without those reserved."""
    oldest_transaction_seconds: float
    """Age of the oldest open database transaction of a client that this role may look at, but of
    `pg_dump`'s."""
    database: str
    deadlocks: int
    """In this database since its statistics began."""
    statistics_since: dt.datetime
    statistics_age_seconds: float

    @property
    def connections(self) -> Mapping[str, int]:
        """Connections by state alone, each of `STATES`."""
        found: Counter[str] = Counter(dict.fromkeys(STATES, 0))
        for (_, state), number in self.connections_of.items():
            found[state] += number
        return found


def server_figures(session: Session) -> ServerFigures:
    """Read them; nothing is locked and no table is."""
    limit, database, deadlocks, since, age = session.execute(_LIMITS).one()
    rows = session.execute(_CONNECTIONS).all()
    return ServerFigures(
        connections_of={(name, state): number for name, state, number, _ in rows},
        connections_limit=limit,
        oldest_transaction_seconds=max((age for *_, age in rows), default=0.0),
        database=database,
        deadlocks=deadlocks,
        statistics_since=since,
        statistics_age_seconds=age,
    )
