"""How Alembic reaches the database: URL from the settings, one migration at a time.

Where `DATABASE_HOST` is not set the embedded server is started for the run, as `flashslides serve`
does, and as there only with ENV=local. Tests hand in a connection
(`config.attributes["connection"]`).
"""

import sys
from contextlib import ExitStack
from typing import Any

import alembic_postgresql_enum  # noqa: F401  # pyright: ignore[reportUnusedImport]  makes autogenerate see enum changes
from alembic import context
from alembic.runtime.migration import MigrationInfo
from sqlalchemy import Connection

from src.common.database_settings import LedgerTriggers
from src.common.models import Base
from src.common.models.preferences import PreferencesJSONB
from src.common.postgres.ledger_triggers_form import put_in_place
from src.common.postgres.migrations import (
    hold_migration_lock,
    migrations_to_undo,
    refuse_data_loss,
    release_migration_lock,
)
from src.common.postgres.reach import build_migration_engine, database_in_reach
from src.common.settings import get_settings


def render_type(kind: str, item: object, _context: object) -> str | bool:
    """Write our own column types into migrations as what they are in the database."""
    if kind == "type" and isinstance(item, PreferencesJSONB):
        return "postgresql.JSONB()"
    return False


def report(*, step: MigrationInfo, **_others: object) -> None:
    """Say which migration was applied; on stderr, whoever runs Alembic."""
    if step.is_upgrade and not step.is_stamp:
        migration = context.script.get_revision(step.up_revision_id or "base")
        sys.stderr.write(f"Upgraded: {migration.doc} ({migration.revision})\n")


OPTIONS: dict[str, Any] = {
    "target_metadata": Base.metadata,
    "compare_server_default": True,
    "transaction_per_migration": True,
    "render_item": render_type,
    "on_version_apply": report,
}


def run(connection: Connection | None) -> None:
    """Run the command: up, each migration for itself; down, all of the way or nothing of it.

    Who goes up lets go of a lock as soon as may be, and can go on where it failed. Who goes down
    ends at the revision that was asked for or is refused, never between.

    Without a connection the SQL is printed instead (`--sql`), for reading and for squawk.
    """
    options: dict[str, Any] = {**OPTIONS, "connection": connection}
    if connection is None:
        options |= {"dialect_name": "postgresql", "literal_binds": True}
    context.configure(**options)
    undone = migrations_to_undo(context.get_context())
    if connection is not None:
        connection.rollback()  # Alembic would take what the look has begun for somebody else's
    options["transaction_per_migration"] = not undone
    context.configure(**options)
    with context.begin_transaction():
        if undone and connection is not None:  # the migrations know the first form alone
            put_in_place(connection, LedgerTriggers.STATEMENT)
        refuse_data_loss(undone)
        context.run_migrations()
    if connection is not None:
        for migration in undone:
            sys.stderr.write(f"Downgraded: {migration.doc} ({migration.revision})\n")
        choose_triggers(connection)


def choose_triggers(connection: Connection) -> None:
    """Once the database is at the newest revision, have the ledger checked as the settings say."""
    migrated = context.get_context()
    form = get_settings().database_ledger_triggers
    is_newest = {*migrated.get_current_heads()} == {*context.script.get_heads()}
    if "destination_rev" in migrated.opts and is_newest and put_in_place(connection, form):
        sys.stderr.write(f"The ledger's triggers now look at each {form}\n")
    connection.commit()


def migrate(connection: Connection) -> None:
    """Run the command on `connection`, alone among all processes that migrate this database.

    Where it fails the lock goes with the connection, which is closed then.
    """
    hold_migration_lock(connection)
    run(connection)
    connection.rollback()
    release_migration_lock(connection)


def migrate_given(connection: Connection) -> None:
    """Run the command on a connection whose owner serialises and commits (tests)."""
    connection.commit()  # a concurrent index cannot be made inside what the owner has begun
    run(connection)


def migrate_database() -> None:
    """Connect as the settings say, directly (no pooler), and migrate."""
    with ExitStack() as stack:
        stack.enter_context(database_in_reach(get_settings()))
        engine = build_migration_engine(get_settings())
        migrate(stack.enter_context(engine.connect()))


given = context.config.attributes.get("connection")
if context.is_offline_mode():
    run(None)
elif given is not None:
    migrate_given(given)
else:
    migrate_database()
