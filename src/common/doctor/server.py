"""Checks of the PostgreSQL server: version, durability, standbys, transaction ids, disk."""

import shutil
from collections.abc import Mapping

from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common.doctor.checks import (
    Check,
    Finding,
    Needs,
    count,
    duration,
    fail,
    ok,
    psql,
    skipped,
    unknown,
    warn,
)
from src.common.doctor.context import Context

VERSION_MIN = 150_000
"""PostgreSQL 15 or later is all that is required."""
TRANSACTION_ID_AGE_WARN = 500_000_000
TRANSACTION_ID_AGE_FAIL = 1_500_000_000
"""At two thousand millions the server takes no more writes."""
LAG_WARN_SECONDS = 30.0
DISK_FREE_WARN_BYTES = 5 * 2**30
DISK_FREE_FAIL_BYTES = 2**30

_AGE = text("SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database()")
# A receiver of the log alone replays nothing; a base backup in progress is no standby.
_STANDBYS = text("""
    SELECT coalesce(application_name, ''), state, sync_state,
           extract(epoch FROM replay_lag)::float,
           coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(),
             coalesce(replay_lsn, flush_lsn, sent_lsn))::bigint, 0)
    FROM pg_stat_replication WHERE state IS DISTINCT FROM 'backup' ORDER BY 1
""")
_SLOTS = text("""
    SELECT slot_name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint
    FROM pg_replication_slots WHERE NOT active AND restart_lsn IS NOT NULL ORDER BY 1
""")


def _server_version(context: Context) -> Finding:
    """Which PostgreSQL it is."""
    with context.looking() as session:
        shown = _settings_of(session, "server_version", "server_version_num")
    version = shown["server_version"]
    if int(shown["server_version_num"]) < VERSION_MIN:
        return fail(
            f"PostgreSQL {version} is older than 15.", "pg_upgrade to PostgreSQL 15 or later"
        )
    return ok(f"PostgreSQL {version}.")


def _durability(context: Context) -> Finding:
    """Whether a power cut leaves what was committed: fsync and full_page_writes."""
    with context.looking() as session:
        shown = _settings_of(session, "fsync", "full_page_writes")
    off = [name for name, value in shown.items() if value == "off"]
    if off:
        return fail(
            f"{' and '.join(off)} off: a power cut may destroy the database.",
            _alter_system(off[0], "on"),
        )
    return ok("fsync and full_page_writes are on.")


def _synchronous_commit(context: Context) -> Finding:
    """Whether an answer waits until what it says is on disk."""
    with context.looking() as session:
        shown = _settings_of(session, "synchronous_commit", "synchronous_standby_names")
    value = shown["synchronous_commit"]
    if value == "off":
        return fail(
            "synchronous_commit is off: what was answered may be gone after a crash.",
            _alter_system("synchronous_commit", "on"),
        )
    if value == "local" and shown["synchronous_standby_names"]:
        return warn(
            "synchronous_commit is local: no answer waits for the synchronous standbys.",
            _alter_system("synchronous_commit", "on"),
        )
    return ok(f"synchronous_commit is {value}.")


def _checksums(context: Context) -> Finding:
    """Whether damaged pages of the disk are noticed."""
    with context.looking() as session:
        shown = _settings_of(session, "data_checksums")
    if shown["data_checksums"] == "on":
        return ok("Data checksums are on.")
    return warn(
        "Data checksums are off: what a disk damages is read as if it were right.",
        "stop the server, then: pg_checksums --enable -D its_data_directory",
    )


def _transaction_id_age(context: Context) -> Finding:
    """How far the database is from running out of transaction ids."""
    with context.looking() as session:
        age = session.execute(_AGE).scalar_one()
    seen = f"The oldest transaction id is {age:,} old, of 2,000,000,000."
    if age < TRANSACTION_ID_AGE_WARN:
        return ok(seen)
    step = psql("VACUUM (FREEZE)")
    return fail(seen, step) if age >= TRANSACTION_ID_AGE_FAIL else warn(seen, step)


def _replication(context: Context) -> Finding:
    """How far standbys are behind, and slots that keep the log for nobody."""
    with context.looking() as session:
        standbys = session.execute(_STANDBYS).all()
        slots = session.execute(_SLOTS).all()
        awaited = _settings_of(session, "synchronous_standby_names")["synchronous_standby_names"]
    if slots:
        named = ", ".join(f"{name} ({size / 2**20:,.0f} MB)" for name, size in slots)
        return warn(
            f"Nobody reads {count(len(slots), 'replication slot')}: {named}. The log is kept for "
            "them until the disk is full.",
            "start its standby again; only if that is gone for good: "
            + psql(f"SELECT pg_drop_replication_slot('{slots[0][0]}')"),
        )
    if any(state is None for _, state, *_ in standbys):
        return unknown(
            "Standbys are hidden from this role.",
            psql("GRANT pg_monitor TO the_role_of_DATABASE_USER"),
        )
    if awaited and not any(sync in ("sync", "quorum") for _, _, sync, *_ in standbys):
        return fail(
            f"No synchronous standby is connected (synchronous_standby_names = {awaited}): every "
            "commit waits for one.",
            "start the standby, or: " + _alter_system("synchronous_standby_names", ""),
        )
    if not standbys:
        return skipped("There are no standbys.")
    told = ", ".join(
        f"{name} ({sync}) {duration(lag or 0)}, {size / 2**20:,.0f} MB behind"
        for name, _, sync, lag, size in standbys
    )
    if max(lag or 0 for *_, lag, _ in standbys) > LAG_WARN_SECONDS:
        return warn(f"{told}.", psql("TABLE pg_stat_replication"))
    return ok(f"{told}.")


def _embedded_disk(context: Context) -> Finding:
    """The free space where the embedded server keeps its data."""
    if context.settings.database_host is not None or not context.settings.is_local:
        return skipped("The server is not the embedded one; its disk is not seen from here.")
    from src.local_postgres import data_folder, holds_database

    folder = data_folder()
    if not holds_database():
        return skipped(f"There is no database in {folder}.")
    free = shutil.disk_usage(folder).free
    seen = f"{free / 2**30:,.1f} GB are free where {folder} is."
    if free >= DISK_FREE_WARN_BYTES:
        return ok(seen)
    step = f"du -sh {folder}/*; free space there, or name another folder in FLASHSLIDES_DATA_DIR"
    return fail(seen, step) if free < DISK_FREE_FAIL_BYTES else warn(seen, step)


def _settings_of(session: Session, *names: str) -> Mapping[str, str]:
    """The server's settings of these names, as they are for this role."""
    columns = ", ".join(f"current_setting('{name}')" for name in names)
    shown = session.execute(text(f"SELECT {columns}")).one()
    return dict(zip(names, shown, strict=True))


def _alter_system(name: str, value: str) -> str:
    return (
        f"flashslides db psql -c \"ALTER SYSTEM SET {name} = '{value}'\" "
        '-c "SELECT pg_reload_conf()"'
    )


CHECKS = (
    Check(
        "server-version",
        _server_version,
        Needs.DATABASE,
        "Older versions lack what the statements here need.",
    ),
    Check(
        "server-durability",
        _durability,
        Needs.DATABASE,
        "What was paid must be there after the next power cut.",
    ),
    Check(
        "synchronous-commit",
        _synchronous_commit,
        Needs.DATABASE,
        "No answer may rest on rows that are less durable than it says.",
    ),
    Check(
        "data-checksums",
        _checksums,
        Needs.DATABASE,
        "Damage that is noticed late is in the backups too.",
    ),
    Check(
        "transaction-id-age",
        _transaction_id_age,
        Needs.DATABASE,
        "A server that runs out of transaction ids stops taking writes.",
    ),
    Check(
        "replication",
        _replication,
        Needs.DATABASE,
        "A standby that lags loses what it lacks when it takes over, or stops every commit.",
    ),
    Check(
        "embedded-disk",
        _embedded_disk,
        Needs.SETTINGS,
        "A server whose disk is full stops.",
    ),
)
