"""How Alembic reaches the database: URL from the settings, one migration at a time.

Where `DATABASE_HOST` is not set the embedded server is started for the run, as `flashslides serve`
does, and as there only with ENV=local. Tests hand in a connection
(`config.attributes["connection"]`).
"""

import sys
from contextlib import ExitStack
from functools import partial
from typing import Any

import alembic_postgresql_enum  # noqa: F401  # pyright: ignore[reportUnusedImport]  makes autogenerate see enum changes
from alembic import context
from alembic.runtime.migration import MigrationInfo
from alembic.script import Script
from alembic.util import CommandError
from sqlalchemy import Connection

from src.common.database_settings import LedgerTriggers, Sharding
from src.common.models import Base
from src.common.models.preferences import PreferencesJSONB
from src.common.postgres.ledger_triggers_form import put_in_place
from src.common.postgres.migrations import (
    SCHEMAS_ATTRIBUTE,
    hold_migration_lock,
    migrations_to_undo,
    refuse_data_loss,
    release_migration_lock,
)
from src.common.postgres.reach import build_migration_engine, database_in_reach
from src.common.postgres.sided_migrations import OfSide, is_of_side, seen_alone
from src.common.postgres.sides import Side, side_here
from src.common.settings import get_settings
from src.common.sharding.division import divide
from src.common.sharding.groups import ready_groups
from src.common.sharding.refusals import DIVIDED


def render_type(kind: str, item: object, _context: object) -> str | bool:
    """Write our own column types into migrations as what they are in the database."""
    if kind == "type" and isinstance(item, PreferencesJSONB):
        return "postgresql.JSONB()"
    return False


def report(*, step: MigrationInfo, where: str, **_others: object) -> None:
    """Say which migration was applied; on stderr, whoever runs Alembic.

    Who makes groups names each once it is ready: all migrations of all of them tell nobody more.
    """
    makes_groups = SCHEMAS_ATTRIBUTE in context.config.attributes
    if step.is_upgrade and not step.is_stamp and not makes_groups:
        migration = context.script.get_revision(step.up_revision_id or "base")
        sys.stderr.write(f"Upgraded{where}: {migration.doc} ({migration.revision})\n")


OPTIONS: dict[str, Any] = {
    "target_metadata": Base.metadata,
    "compare_server_default": True,
    "transaction_per_migration": True,
    "render_item": render_type,
}


def run(connection: Connection | None) -> None:
    """Run the command where it is meant: in `public`, and then for each group of users."""
    if connection is None:
        run_here(None)
        return
    schemas: list[str] | None = context.config.attributes.get(SCHEMAS_ATTRIBUTE)
    if schemas is None:
        run_here(connection)
        schemas = groups_to_migrate(connection)
    for schema in schemas:
        with seen_alone(connection, schema):
            run_here(connection, where=f" in {schema}")


def run_here(connection: Connection | None, where: str = "") -> None:
    """Run the command: up, each migration for itself; down, all of the way or nothing of it.

    Who goes up lets go of a lock as soon as may be, and can go on where it failed. Who goes down
    ends at the revision that was asked for or is refused, never between.

    Without a connection the SQL is printed instead (`--sql`), for reading and for squawk.
    """
    options: dict[str, Any] = {**OPTIONS, "connection": connection}
    options["on_version_apply"] = partial(report, where=where)
    if connection is None:
        options |= {"dialect_name": "postgresql", "literal_binds": True}
    context.configure(**options)
    undone = migrations_to_undo(context.get_context())
    side = None
    if connection is not None:
        side = side_here(connection)
        refuse_what_is_divided(side, undone)
        connection.rollback()  # Alembic would take what the look has begun for somebody else's
        if side is not None:
            options |= options_of(side, connection)
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
        if is_newest():
            divide_into_groups(connection)
            choose_triggers(connection, where)
        connection.commit()  # also what only looked: the connection may be somebody else's


def options_of(side: Side, connection: Connection) -> dict[str, Any]:
    """What Alembic is told where a schema has the tables of one side alone."""
    steps = context.get_context().opts["fn"]
    if isinstance(steps, OfSide):  # Alembic keeps what it was told for the schema before
        steps.side = side
    else:
        steps = OfSide(steps, connection, side)
    return {"include_object": partial(is_of_side, side), "fn": steps}


def is_newest() -> bool:
    """Whether the command has brought the schema at hand to the newest revision."""
    migrated = context.get_context()
    is_at_head = {*migrated.get_current_heads()} == {*context.script.get_heads()}
    return "destination_rev" in migrated.opts and is_at_head


def refuse_what_is_divided(side: Side | None, undone: list[Script]) -> None:
    """Stop what would take users in groups for nobody.

    Raises:
        CommandError: users are in groups, and the settings do not know, or it is to be undone.
    """
    if side is None or "destination_rev" not in context.get_context().opts:
        return
    if get_settings().sharding is Sharding.NONE:
        raise CommandError(DIVIDED)
    if undone:
        raise CommandError(
            "SHARDING=schemas: a database that keeps its users in groups cannot be downgraded"
        )


def groups_to_migrate(connection: Connection) -> list[str]:
    """Every group's schema, where the command migrates and users are in groups."""
    is_meant = "destination_rev" in context.get_context().opts
    if not is_meant or get_settings().sharding is Sharding.NONE:
        return []
    schemas = ready_groups(connection) if side_here(connection) is Side.EVERYBODY else []
    connection.rollback()
    return schemas


def divide_into_groups(connection: Connection) -> None:
    """Where the settings say so, leave in `public` what is everybody's."""
    if get_settings().sharding is Sharding.SCHEMAS and divide(connection):
        sys.stderr.write("Users come to groups now: `flashslides shards create` makes them\n")
    connection.commit()


def choose_triggers(connection: Connection, where: str) -> None:
    """Have the ledger checked as the settings say, where there is one."""
    form = get_settings().database_ledger_triggers
    is_here = side_here(connection) is not Side.EVERYBODY
    if is_here and put_in_place(connection, form):
        sys.stderr.write(f"The ledger's triggers now look at each {form}{where}\n")
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
    """Run the command on a connection whose owner serialises and commits."""
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
