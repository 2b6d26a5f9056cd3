"""Several processes migrate one database: they take turns, and a dead one is in nobody's way."""

from collections import Counter

import pytest
from sqlalchemy import Connection, text

from src.common.migrations import current_revision, head_revision, hold_migration_lock
from src.common.migrations import release_migration_lock as let_go
from tests.migrations.commands import alembic, revisions, start_alembic

LOCKS = text(
    "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
    " WHERE datname = current_database() AND granted = :granted AND locktype = :locktype"
)


def until_waiting(connection: Connection, locktype: str, processes: int) -> None:
    """Return as soon as this many processes wait for a lock of this type (the test times out)."""
    waiting = {"locktype": locktype, "granted": False}
    while connection.execute(LOCKS, waiting).scalar_one() < processes:
        connection.rollback()
    connection.rollback()


def test_two_processes_at_once_migrate_once(alembic_engine: Connection) -> None:
    """Both wait for the same lock; both succeed; every migration was applied by one of them."""
    hold_migration_lock(alembic_engine)
    both = [start_alembic("upgrade", "head") for _ in range(2)]
    until_waiting(alembic_engine, "advisory", 2)
    let_go(alembic_engine)
    logged = "".join(process.communicate(timeout=60)[1] for process in both)
    assert [process.returncode for process in both] == [0, 0], logged
    applied = Counter(line for line in logged.splitlines() if line.startswith("Upgraded: "))
    assert set(applied.values()) == {1}
    assert len(applied) == len(revisions())
    assert current_revision(alembic_engine) == head_revision()


@pytest.mark.usefixtures("empty_database")
def test_a_killed_migration_does_not_block_the_next(alembic_engine: Connection) -> None:
    """A process killed while it holds the migration lock leaves the lock to the next one."""
    alembic_engine.exec_driver_sql("CREATE TABLE alembic_version (version_num varchar(32))")
    alembic_engine.commit()
    alembic_engine.exec_driver_sql("LOCK TABLE alembic_version")
    doomed = start_alembic("upgrade", "head")
    with alembic_engine.engine.connect() as watching:
        until_waiting(watching, "relation", 1)
        held = watching.scalar(LOCKS, {"locktype": "advisory", "granted": True})
    assert held == 1
    doomed.kill()
    doomed.communicate()
    alembic_engine.rollback()
    alembic("upgrade", "head")
    assert current_revision(alembic_engine) == head_revision()
