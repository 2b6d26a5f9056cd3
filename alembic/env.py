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

from src.common.database_reach import build_migration_engine, database_in_reach
from src.common.migrations import hold_migration_lock, release_migration_lock
from src.common.models import Base
from src.common.models.preferences import PreferencesJSONB
from src.common.settings import get_settings


def render_type(kind: str, item: object, _context: object) -> str | bool:
    """Write our own column types into migrations as what they are in the database."""
    if kind == "type" and isinstance(item, PreferencesJSONB):
        return "postgresql.JSONB()"
    return False


def report(*, step: MigrationInfo, **_others: object) -> None:
    """Say which migration was applied; on stderr, whoever runs Alembic."""
    if not step.is_stamp:
        verb = "Upgraded" if step.is_upgrade else "Downgraded"
        migration = context.script.get_revision(step.up_revision_id or "base")
        sys.stderr.write(f"{verb}: {migration.doc} ({migration.revision})\n")


OPTIONS: dict[str, Any] = {
    "target_metadata": Base.metadata,
    "compare_server_default": True,
    "transaction_per_migration": True,
    "render_item": render_type,
    "on_version_apply": report,
}


def migrate(connection: Connection) -> None:
    """Run the command on `connection`, alone among all processes that migrate this database.

    Where it fails the lock goes with the connection, which is closed then.
    """
    context.configure(connection=connection, **OPTIONS)
    hold_migration_lock(connection)
    with context.begin_transaction():
        context.run_migrations()
    connection.rollback()
    release_migration_lock(connection)


def migrate_given(connection: Connection) -> None:
    """Run the command on a connection whose owner serialises and commits (tests)."""
    connection.commit()  # a concurrent index cannot be made inside what the owner has begun
    context.configure(connection=connection, **OPTIONS)
    with context.begin_transaction():
        context.run_migrations()


def migrate_database() -> None:
    """Connect as the settings say, directly (no pooler), and migrate."""
    with ExitStack() as stack:
        stack.enter_context(database_in_reach(get_settings()))
        engine = build_migration_engine(get_settings())
        migrate(stack.enter_context(engine.connect()))


def write_sql() -> None:
    """Print the SQL instead of running it (`--sql`), for reading and for squawk."""
    context.configure(dialect_name="postgresql", literal_binds=True, **OPTIONS)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if context.is_offline_mode():
    write_sql()
elif given is not None:
    migrate_given(given)
else:
    migrate_database()
