"""Checks of JSONB: the document's trouble "JSONB Query Performance"."""

from typing import Any

from sqlalchemy import Select, literal_column, select, text
from sqlalchemy.orm import Session

from src.common.doctor.checks import Check, Finding, Needs, count, duration, fail, ok, psql, warn
from src.common.doctor.context import Context
from src.common.doctor.storage import create_index_statement
from src.common.models.user import User
from src.common.postgres.sides import Side

INDEXES = ("ix_users_preferences", "ix_users_company")
"""The GIN index, which containment uses, and the expression index on the company."""
MANY_USERS = 10_000
"""From here on a scan of all users is worth a warning."""
SCANS_A_DAY_WARN = 1_000
QUERIES: dict[str, Select[Any]] = {
    "users of a company": select(User.user_id).where(
        User.preferences["company"].astext == "Acme Inc"
    ),
    "users who contain a preference": select(User.user_id).where(
        User.preferences.contains(literal_column("'{\"marketing_consent\": true}'::jsonb"))
    ),
}
"""The document's queries, and the containment that the GIN index is for."""
SELECTIVE: dict[str, Select[Any]] = {
    "users of a company": select(User.user_id).where(
        User.preferences["company"].astext == "nobody's, by flashslides doctor"
    ),
    "users who contain a preference": select(User.user_id).where(
        User.preferences.contains(literal_column('\'{"nobody": "flashslides doctor"}\'::jsonb'))
    ),
}
"""The same for few users: where most have what is asked for, reading all of them is right."""
_STATES = text("""
    SELECT wanted.name, index.indisvalid AND index.indisready, coalesce(used.idx_scan, 0)
    FROM unnest(CAST(:names AS text[])) AS wanted (name)
    LEFT JOIN pg_index AS index ON index.indexrelid = to_regclass(wanted.name)
      AND index.indrelid = to_regclass('users')
    LEFT JOIN pg_stat_user_indexes AS used ON used.indexrelid = index.indexrelid
""")
_SCANS = text("""
    SELECT seq_scan, seq_tup_read, n_live_tup,
           extract(epoch FROM clock_timestamp() - coalesce(
             (SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()),
             pg_postmaster_start_time()))::float / 86400
    FROM pg_stat_user_tables WHERE relid = to_regclass('users')
""")


def _preferences_indexes(context: Context) -> Finding:
    """Whether the GIN index and the expression index of preferences are there and valid."""
    with context.looking() as session:
        states = session.execute(_STATES, {"names": list(INDEXES)}).all()
    for name, is_valid, _ in states:
        if is_valid is None:
            return fail(f"There is no index {name}.", psql(create_index_statement(name)))
        if not is_valid:
            return fail(
                f"The index {name} is not valid: it was begun and not finished.",
                psql(f"REINDEX INDEX CONCURRENTLY {name}"),
            )
    used = ", ".join(f"{name} ({count(scans, 'scan')})" for name, _, scans in states)
    return ok(f"Both are there and valid: {used}.")


def _preferences_queries(context: Context) -> Finding:
    """Whether PostgreSQL plans the document's queries of preferences with these indexes."""
    chosen: list[str] = []
    with context.looking() as session:
        many = (session.execute(_SCANS).one()[2] or 0) >= MANY_USERS
        for name, query in QUERIES.items():
            if _reads_all_users(session, query):
                return fail(
                    f"No index serves the query for {name}.",
                    "flashslides doctor preferences-indexes",
                )
        session.execute(text("SET LOCAL enable_seqscan = on"))
        for name, query in SELECTIVE.items():
            if many and _reads_all_users(session, query):
                chosen.append(name)
    if chosen:
        return warn(
            f"PostgreSQL reads all users for {' and '.join(chosen)}, also where few have what is "
            "asked for: it takes what it knows of the table for that.",
            psql("ANALYZE users"),
        )
    return ok(
        "They are planned with their indexes. The query for marketing_consent as a boolean has "
        "none: ask with contains({'marketing_consent': True})."
    )


def _preferences_scans(context: Context) -> Finding:
    """How often all users are read, as a query of preferences without an index does."""
    with context.looking() as session:
        scans, rows_read, users, days = session.execute(_SCANS).one()
    whole = rows_read / max(users, 1)
    seen = (
        f"{count(scans, 'sequential scan')} of users in {duration(days * 86_400)}, which read the "
        f"table {whole:,.0f} times over ({count(users, 'user')})."
    )
    if users < MANY_USERS or whole / max(days, 1) < SCANS_A_DAY_WARN:
        return ok(seen)
    return warn(
        seen,
        "find the query: ALTER SYSTEM SET log_min_duration_statement = 200, or the extension "
        "pg_stat_statements; ask for preferences by contains() or the company",
    )


def _reads_all_users(session: Session, query: Select[Any]) -> bool:
    connection = session.connection()
    compiled = query.compile(connection, compile_kwargs={"literal_binds": True})
    plan = connection.exec_driver_sql(f"EXPLAIN {compiled}").scalars()
    return any("Seq Scan on users" in line for line in plan)


CHECKS = (
    Check(
        "preferences-indexes",
        _preferences_indexes,
        Needs.TABLES,
        "Without them a look for a company or a preference reads every user.",
        sides=(Side.USERS,),
    ),
    Check(
        "preferences-queries",
        _preferences_queries,
        Needs.TABLES,
        "An index that a query cannot use helps nobody.",
        sides=(Side.USERS,),
    ),
    Check(
        "preferences-scans",
        _preferences_scans,
        Needs.TABLES,
        "Each such scan reads the whole table and pushes what others need out of memory.",
        sides=(Side.USERS,),
    ),
)
