"""The document's plain `alembic` commands, as processes started in the repository's root."""

import re

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, inspect

from src.common.postgres.migrations import head_revision
from src.local_postgres import ConnectionParameters
from tests.document.document import blocks, run
from tests.migrations.commands import alembic, revisions

# `init` made what is there already; `revision` is tests/migrations/test_how_to.py's.
ELSEWHERE = {"alembic init alembic", 'alembic revision --autogenerate -m "add user bio field"'}
HERE = {
    "alembic upgrade head",
    "alembic downgrade -1",
    "alembic current",
    "alembic history",
    "alembic stamp head",
}


def test_every_command_of_the_document_is_run() -> None:
    """The tests know each `alembic` line of the document's shell blocks."""
    written = {
        line.strip()
        for block in blocks("bash")
        for line in re.findall("^alembic .*", block, re.MULTILINE)
    }
    assert written == HERE | ELSEWHERE


@pytest.mark.usefixtures("empty_database")
def test_up_and_down_by_plain_commands() -> None:
    """`upgrade head`, `current`, `downgrade -1` work as the document writes them."""
    *_, below, head = (migration.revision for migration in revisions())
    alembic("upgrade", "head")
    assert alembic("current").strip() == f"{head} (head)"
    alembic("downgrade", "-1")
    assert alembic("current").strip() == below


@pytest.mark.usefixtures("empty_database")
def test_a_database_made_by_hand_can_be_stamped() -> None:
    """After `stamp head` Alembic takes the database to be at the newest revision."""
    alembic("stamp", "head")
    assert alembic("current").strip() == f"{head_revision()} (head)"


def test_the_history_can_be_read(worker_database: ConnectionParameters) -> None:
    """`history` lists every migration, the newest first, the head marked."""
    assert worker_database
    lines = alembic("history").splitlines()
    assert "(head)" in lines[0]
    listed = [re.findall(r"-> (\w+)", line)[0] for line in lines]
    assert listed == [migration.revision for migration in reversed(revisions())]


def test_the_document_s_migration_runs(alembic_engine: Connection) -> None:
    """The document's template adds the column `bio` and takes it away again."""
    alembic_engine.exec_driver_sql("CREATE TABLE users (user_id uuid)")
    migration = run("a migration")
    with Operations.context(MigrationContext.configure(alembic_engine)):
        migration["upgrade"]()
        assert "bio" in columns_of_users(alembic_engine)
        migration["downgrade"]()
    assert "bio" not in columns_of_users(alembic_engine)


def columns_of_users(connection: Connection) -> set[str]:
    """The names of the columns of `users`."""
    return {column["name"] for column in inspect(connection).get_columns("users")}
