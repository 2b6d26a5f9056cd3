"""Checks of connections: what pools may open, who is connected, who waits for whom.

The document's troubles "Connection Pool Exhausted" and "Deadlocks".
"""

from collections.abc import Sequence

from sqlalchemy import text

from src.common import worker_heartbeats
from src.common.database_settings import DatabasePooler
from src.common.doctor.checks import (
    Check,
    Finding,
    Needs,
    count,
    duration,
    ok,
    psql,
    skipped,
    unknown,
    warn,
)
from src.common.doctor.context import Context
from src.common.postgres.engines import connections_allowed, connections_wanted
from src.common.postgres.server_figures import server_figures

USED_SHARE_WARN = 0.8
"""Which share of the server's connections may be in use."""
IDLE_WARN_SECONDS = 5.0
"""How long a session may be idle in its database transaction."""
BLOCKED_WARN_SECONDS = 1.0
"""How long a session may wait for another's lock."""
DEADLOCKS_A_DAY_WARN = 1.0
_SHOWN = 5
_PREPARED_PROCESS = 0
"""What PostgreSQL answers for a blocker that is a prepared database transaction."""

_LIMITS = text("""
    SELECT nullif(rolconnlimit, -1), nullif(datconnlimit, -1), rolsuper
    FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database()
""")
_IDLE = text("""
    SELECT pid, application_name, state_change,
           extract(epoch FROM clock_timestamp() - state_change)::float
    FROM pg_stat_activity
    WHERE state LIKE 'idle in transaction%' AND datname = current_database()
      AND pid <> pg_backend_pid()
    ORDER BY state_change
""")
_NOT_SHOWN = text("""
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND state IS NULL
""")
_BLOCKED = text("""
    SELECT waiting.pid, name.application_name, blocking.pid, blocker.application_name,
           blocker.state, extract(epoch FROM clock_timestamp() - waiting.since)::float
    FROM (SELECT pid, min(waitstart) AS since FROM pg_locks WHERE NOT granted GROUP BY pid)
         AS waiting
    CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS blocking (pid)
    JOIN pg_stat_activity AS name ON name.pid = waiting.pid AND name.datname = current_database()
    LEFT JOIN pg_stat_activity AS blocker ON blocker.pid = blocking.pid
    ORDER BY waiting.since, 1, 3
""")
_PREPARED = text(
    "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared"
)


def _pool_sum(context: Context) -> Finding:
    """The connections that all processes' pools may open, beside what the server allows."""
    settings = context.settings
    if settings.database_pooler is not DatabasePooler.NONE:
        return skipped(f"DATABASE_POOLER={settings.database_pooler}: the pooler limits them.")
    with context.looking() as session:
        allowed = connections_allowed(session.connection())
        of_role, of_database, is_superuser = session.execute(_LIMITS).one()
        workers = worker_heartbeats.read_workers(session).alive
    allowed = min(allowed, of_database or allowed, allowed if is_superuser else of_role or allowed)
    each = connections_wanted(settings)
    pool = settings.database_pool_size + settings.database_max_overflow
    of_workers = workers * min(pool, worker_heartbeats.CONNECTIONS_MAX)
    wanted = settings.web_concurrency * each + of_workers
    processes = count(settings.web_concurrency, "server process", "server processes")
    seen = (
        f"{processes} of up to {each} connections and {count(workers, 'worker')} may open "
        f"{wanted}; {allowed} are allowed."
    )
    if wanted <= allowed:
        return ok(seen)
    return warn(
        seen,
        "lower DATABASE_POOL_SIZE, DATABASE_MAX_OVERFLOW, their DATABASE_ASYNC_ twins or "
        "WEB_CONCURRENCY, raise max_connections, or put PgBouncer in front (DATABASE_POOLER)",
    )


def _connections_in_use(context: Context) -> Finding:
    """The connections in use, by application and state, and how many are left."""
    with context.looking() as session:
        server = server_figures(session)
    used = 1 + sum(server.connections_of.values())  # with the one that asks
    rows = sorted(server.connections_of.items(), key=lambda row: (-row[1], row[0]))
    shown = [f"{name or 'without a name'} {state}: {number}" for (name, state), number in rows]
    others = sum(number for _, number in rows[_SHOWN:])
    shown[_SHOWN:] = [f"others: {others}"] if others else []
    seen = f"{used} of {server.connections_limit} connections are in use, this one among them"
    seen = f"{': '.join([seen, ', '.join(shown)] if shown else [seen])}."
    if used <= USED_SHARE_WARN * server.connections_limit:
        return ok(seen)
    return warn(seen, "flashslides doctor idle-in-transaction blocked-sessions pool-sum")


def _idle_in_transaction(context: Context) -> Finding:
    """Sessions that are idle in an open database transaction, and since when."""
    with context.looking() as session:
        rows = session.execute(_IDLE).all()
        hidden = session.execute(_NOT_SHOWN).scalar_one()
    long = [row for row in rows if row[3] >= IDLE_WARN_SECONDS]
    if long:
        named = "; ".join(
            f"process {pid} ({name or 'without a name'}) since {since:%H:%M:%S %Z}, "
            f"{duration(seconds)}"
            for pid, name, since, seconds in long[:_SHOWN]
        )
        return warn(
            f"{count(len(long), 'session')} idle in a database transaction: {named}.",
            psql(f"SELECT pg_terminate_backend({long[0][0]})"),
        )
    return _unless_hidden(
        hidden, f"No session is idle in a database transaction for {IDLE_WARN_SECONDS:g} s."
    )


def _blocked_sessions(context: Context) -> Finding:
    """Who waits for whose lock at this moment."""
    with context.looking() as session:
        rows = session.execute(_BLOCKED).all()
        prepared = session.scalars(_PREPARED).all()
    long = [row for row in rows if (row[5] or 0) >= BLOCKED_WARN_SECONDS]
    if not long:
        return ok(f"Nobody waits longer than {BLOCKED_WARN_SECONDS:g} s for a lock.")
    gids = " or ".join(repr(gid) for gid in prepared)
    named = "; ".join(
        f"process {waiting} ({name or 'without a name'}) waits for "
        + (
            f"{blocker} ({blocker_name or 'without a name'}, {state or 'in a state not shown'})"
            if blocker != _PREPARED_PROCESS
            else f"a prepared database transaction ({gids or 'of another database'})"
        )
        + f" for {duration(seconds)}"
        for waiting, name, blocker, blocker_name, state, seconds in long[:_SHOWN]
    )
    waiters = {row[0] for row in long}
    roots = [row[2] for row in long if row[2] not in waiters] or [long[0][2]]
    return warn(f"{named}.", _end_blocker(roots, prepared))


def _end_blocker(blockers: Sequence[int], prepared: Sequence[str]) -> str:
    """What ends one of those who wait for nobody; a prepared one has no process to end."""
    processes = [each for each in blockers if each != _PREPARED_PROCESS]
    if processes:
        return psql(f"SELECT pg_terminate_backend({processes[0]})")
    if not prepared:
        return psql("TABLE pg_prepared_xacts")
    gid = prepared[0].replace("'", "''")
    return "ask whoever prepared it; if nobody will finish it: " + psql(
        f"ROLLBACK PREPARED '{gid}'"
    )


def _deadlocks(context: Context) -> Finding:
    """Deadlocks since the statistics began, and how often that is."""
    with context.looking() as session:
        server = server_figures(session)
    days = server.statistics_age_seconds / 86_400
    seen = (
        f"{count(server.deadlocks, 'deadlock')} since "
        f"{server.statistics_since:%Y-%m-%d %H:%M %Z}. Routes, commands, worker "
        "and engine try such a database transaction again by themselves; a caller's own block "
        "gets DATABASE_BUSY."
    )
    if server.deadlocks / max(days, 1) < DEADLOCKS_A_DAY_WARN:
        return ok(seen)
    return warn(
        seen,
        "look for 'deadlock detected' in the server's log, and lock users in one order there: "
        "credits.lock_users(session, ids), or with_for_update(key_share=True) by user_id",
    )


def _unless_hidden(hidden: int, seen: str) -> Finding:
    """Nothing was found, as far as this role may see."""
    if not hidden:
        return ok(seen)
    return unknown(
        f"{seen} But what {count(hidden, 'session')} of other roles do is hidden from this role.",
        psql("GRANT pg_read_all_stats TO the_role_of_DATABASE_USER"),
    )


CHECKS = (
    Check(
        "pool-sum",
        _pool_sum,
        Needs.TABLES,
        "Where pools may open more than there are, requests fail with DATABASE_BUSY under load.",
    ),
    Check(
        "connections-in-use",
        _connections_in_use,
        Needs.DATABASE,
        "The last free connection is nobody's: the next process that needs one is refused.",
    ),
    Check(
        "idle-in-transaction",
        _idle_in_transaction,
        Needs.DATABASE,
        "Such a session keeps its locks and a pool's connection, and holds up vacuum.",
    ),
    Check(
        "blocked-sessions",
        _blocked_sessions,
        Needs.DATABASE,
        "Whoever waits keeps a connection; after DATABASE_LOCK_TIMEOUT_MS it is DATABASE_BUSY.",
    ),
    Check(
        "deadlocks",
        _deadlocks,
        Needs.DATABASE,
        "Each costs a second and a repeated database transaction; many mean a wrong lock order.",
    ),
)
