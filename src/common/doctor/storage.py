"""Checks of tables and indexes: vacuum, and indexes that are missing or that nobody uses."""

from sqlalchemy import Index, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex

from src.common.doctor.checks import Check, Finding, Needs, count, duration, fail, ok, psql, warn
from src.common.doctor.context import Context
from src.common.models import Base
from src.common.postgres.sides import Side

HOT_TABLES = (
    *("users", "credit_lots", "credit_holds", "credit_entries", "credit_postings"),
    *("stripe_events", "charged_requests", "worker_heartbeats"),
)
"""The tables that change most."""
DEAD_ROWS_WARN = 10_000
DEAD_SHARE_WARN = 0.4
"""Autovacuum comes at a fifth by default."""
UNUSED_BYTES_WARN = 64 * 2**20
UNUSED_DAYS = 7.0
_SHOWN = 3

_DEAD_ROWS = text("""
    SELECT pg_class.relname, n_dead_tup, n_live_tup,
           extract(epoch FROM clock_timestamp() - greatest(last_vacuum, last_autovacuum))::float,
           current_setting('autovacuum') = 'on'
             AND coalesce((SELECT option_value::boolean FROM pg_options_to_table(reloptions)
               WHERE option_name = 'autovacuum_enabled'), true)
    FROM pg_stat_user_tables JOIN pg_class ON pg_class.oid = relid
    WHERE relid = ANY (SELECT to_regclass(name) FROM unnest(CAST(:names AS text[])) AS name)
    ORDER BY n_dead_tup DESC
""")
_VALID = text("""
    SELECT relname, indisvalid AND indisready FROM pg_index
    JOIN pg_class ON pg_class.oid = indexrelid
    WHERE relnamespace = current_schema()::regnamespace
""")
_UNUSED = text("""
    SELECT indexrelname, pg_relation_size(indexrelid)
    FROM pg_stat_user_indexes JOIN pg_index USING (indexrelid)
    WHERE idx_scan = 0 AND NOT indisunique AND schemaname = current_schema()
      AND pg_relation_size(indexrelid) >= :bytes
    ORDER BY 2 DESC, 1
""")
_DAYS = text("""
    SELECT extract(epoch FROM clock_timestamp() - coalesce(stats_reset, pg_postmaster_start_time()))
      ::float / 86400
    FROM pg_stat_database WHERE datname = current_database()
""")


def _vacuum_lag(context: Context) -> Finding:
    """Whether vacuum keeps up with the tables that change most."""
    with context.looking() as session:
        rows = session.execute(_DEAD_ROWS, {"names": list(HOT_TABLES)}).all()
    off = [name for name, *_, is_on in rows if not is_on]
    if off:
        return fail(
            f"Autovacuum is off for {', '.join(off)}.",
            psql(f"ALTER TABLE {off[0]} RESET (autovacuum_enabled)")
            + ", and autovacuum = on in postgresql.conf",
        )
    for name, dead, live, age, _ in rows:
        if dead >= DEAD_ROWS_WARN and dead > DEAD_SHARE_WARN * live:
            last = "never" if age is None else f"{duration(age)} ago"
            return warn(
                f"{name} has {dead:,} dead rows beside {live:,} live ones; vacuumed {last}.",
                psql(f"VACUUM (ANALYZE, VERBOSE) {name}"),
            )
    name, dead, *_ = rows[0]
    return ok(f"{name} has the most dead rows: {dead:,}.")


def _indexes_missing(context: Context) -> Finding:
    """Whether every index of the models is there and valid."""
    with context.looking() as session:
        rows = session.execute(_VALID).all()
    found = {str(name): bool(is_valid) for name, is_valid in rows}
    wanted = {
        name: index
        for name, index in _indexes().items()
        if index.table is not None and context.has_table(index.table.name)
    }
    if invalid := sorted(name for name, is_valid in found.items() if not is_valid):
        return fail(
            f"Begun and not finished: {', '.join(invalid)}.",
            psql(f"REINDEX INDEX CONCURRENTLY {invalid[0]}"),
        )
    if missing := sorted(wanted.keys() - found.keys()):
        return fail(f"Not there: {', '.join(missing)}.", psql(create_index_statement(missing[0])))
    return ok(f"All {len(wanted)} are there and valid.")


def _indexes_unused(context: Context) -> Finding:
    """Large indexes that are not of the models, and that no query has used for days."""
    with context.looking() as session:
        days = session.execute(_DAYS).scalar_one()
        rows = session.execute(_UNUSED, {"bytes": UNUSED_BYTES_WARN}).all()
    since = duration(days * 86_400)
    strangers = [(name, size) for name, size in rows if name not in _indexes()]
    if not strangers:
        ours = f" but {len(rows)} of the models" if rows else ""
        return ok(f"In {since} every large index was used{ours}.")
    named = ", ".join(f"{name} ({size / 2**20:,.0f} MB)" for name, size in strangers[:_SHOWN])
    number = count(len(strangers), "large index", "large indexes")
    seen = f"In {since} nobody used {number} that the models do not have: {named}."
    if days < UNUSED_DAYS:
        return ok(f"{seen} That is not long.")
    return warn(seen, psql(f"DROP INDEX CONCURRENTLY {strangers[0][0]}"))


def create_index_statement(name: str) -> str:
    """The statement that makes an index of the models, without a lock on its table."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # the library's own
    made = str(CreateIndex(_indexes()[name]).compile(dialect=dialect))
    return " ".join(made.replace("INDEX", "INDEX CONCURRENTLY", 1).split())


def _indexes() -> dict[str, Index]:
    """Those of the models, by name; primary keys and unique constraints are not among them."""
    tables = Base.metadata.tables.values()
    return {str(index.name): index for table in tables for index in table.indexes}


CHECKS = (
    Check(
        "vacuum-lag",
        _vacuum_lag,
        Needs.TABLES,
        "Dead rows make every look longer and the table larger.",
        sides=(Side.USERS,),
    ),
    Check(
        "indexes-missing",
        _indexes_missing,
        Needs.TABLES,
        "A look that had an index reads the whole table without it.",
        sides=tuple(Side),
    ),
    Check(
        "indexes-unused",
        _indexes_unused,
        Needs.TABLES,
        "Each costs time at every write.",
        sides=tuple(Side),
    ),
)
