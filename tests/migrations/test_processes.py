"""Several processes migrate one database: they take turns, and a dead one is in nobody's way."""

import re
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, text

from src.common.database import get_engine
from src.common.exceptions import DatabaseBusy
from src.common.models import User
from src.common.postgres.migrations import current_revision, head_revision, hold_migration_lock
from src.common.postgres.migrations import release_migration_lock as let_go
from tests.migrations.commands import alembic, copy_of_repository, revisions, start_alembic
from tests.migrations.test_history import structure
from tests.migrations.test_how_to import INDEX, add_migrations
from tests.models.right_rows import RIGHT

LOCKS = text(
    "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
    " WHERE datname = current_database() AND granted = :granted AND locktype = :locktype"
)

# Who waits to migrate asks for the lock, commits and rests, again and again.
ASKING = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND (query = 'COMMIT' OR query LIKE '%pg_try_advisory_lock%')"
)


def until_asking(connection: Connection, processes: int) -> None:
    """Return as soon as this many processes wait for their turn to migrate."""
    while connection.execute(ASKING).scalar_one() < processes:
        connection.rollback()
    connection.rollback()


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
    until_asking(alembic_engine, 2)
    let_go(alembic_engine)
    logged = "".join(process.communicate(timeout=600)[1] for process in both)
    assert [process.returncode for process in both] == [0, 0], logged
    applied = Counter(line for line in logged.splitlines() if line.startswith("Upgraded: "))
    assert set(applied.values()) == {1}
    assert len(applied) == len(revisions())
    assert current_revision(alembic_engine) == head_revision()


@pytest.mark.usefixtures("fresh_database")
def test_an_index_is_built_concurrently_while_another_process_waits(tmp_path: Path) -> None:
    """Who waits has no snapshot that the index would wait for; one builds it, both succeed."""
    copy = copy_of_repository(tmp_path / "repository")
    add_migrations(copy, INDEX)
    with get_engine().connect() as connection:
        hold_migration_lock(connection)
        both = [start_alembic("upgrade", "head", root=copy) for _ in range(2)]
        until_asking(connection, 2)
        let_go(connection)
        logged = "".join(process.communicate(timeout=600)[1] for process in both)
        assert [process.returncode for process in both] == [0, 0], logged
        assert len(re.findall("^Upgraded: ", logged, re.MULTILINE)) == 1
        assert current_revision(connection) == "recipe_0"


def test_a_process_does_not_wait_for_ever(alembic_engine: Connection) -> None:
    """After its patience it says that another one migrates, and leaves no transaction open."""
    hold_migration_lock(alembic_engine)
    with (
        alembic_engine.engine.connect() as second,
        pytest.raises(DatabaseBusy, match="Another process has been migrating"),
    ):
        hold_migration_lock(second, patience_seconds=0)
    assert not second.in_transaction()


def test_a_row_that_is_being_written_is_not_dropped(alembic_engine: Connection) -> None:
    """A downgrade waits for whoever writes into a table of its last step before it takes any."""
    alembic("upgrade", "head")
    before = structure(alembic_engine)
    alembic_engine.execute(insert(User).values(RIGHT[User]))
    downgrade = start_alembic("downgrade", "base")
    with alembic_engine.engine.connect() as watching:
        until_waiting(watching, "relation", 1)
    alembic_engine.commit()
    said = "".join(downgrade.communicate(timeout=600))
    assert downgrade.returncode != 0
    assert "allow-data-loss" in said
    assert current_revision(alembic_engine) == head_revision()
    assert structure(alembic_engine) == before
    assert alembic_engine.scalar(text("SELECT count(*) FROM users")) == 1


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
