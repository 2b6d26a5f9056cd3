"""Makes groups: a schema each, by the migrations that make `public`, ahead of the users.

Killed at any point it is begun again: what has no row in `user_groups` yet is gone on with first.
"""

from collections.abc import Generator
from contextlib import closing

from psycopg import sql
from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql import insert

from src.common.models.user_group import UserGroup
from src.common.postgres.migrations import (
    SCHEMAS_ATTRIBUTE,
    alembic_config,
    hold_migration_lock,
    release_migration_lock,
)
from src.common.postgres.reach import build_migration_engine
from src.common.postgres.routes import is_group
from src.common.postgres.runtime_role import grant_in_group, roles_of_service
from src.common.settings import Settings
from src.common.sharding.citus import ready_for_groups
from src.common.sharding.groups import ready_groups
from src.common.sharding.notice_numbers import count_apart
from src.common.sharding.refusals import refuse_undivided

_SCHEMAS = text(r"SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^g[0-9]{4,9}$'")


def create_groups(settings: Settings, number: int, *, is_open: bool = True) -> Generator[str]:
    """Make so many groups; the name of each once it is ready.

    Raises:
        DatabaseBusy: another process migrates, or makes groups, for too long.
        SettingsError: the database is not divided, or there is a pooler in the way, or Citus lacks
            something.
    """
    engine = build_migration_engine(settings)
    try:
        with closing(engine.connect()) as connection:
            hold_migration_lock(connection)
            refuse_undivided(connection, settings)
            ready_for_groups(connection)
            for _ in range(number):
                schema = _begun(connection)
                _migrate(connection, schema)
                _finish(connection, schema, is_open=is_open)
                yield schema
            release_migration_lock(connection)
    finally:
        engine.dispose()


def _begun(connection: Connection) -> str:
    """The schema of a group that is to be made ready: one that was begun, or the next."""
    ready = set(ready_groups(connection))
    there: set[str] = {name for name in connection.scalars(_SCHEMAS) if is_group(name)}
    unfinished = sorted(there - ready)
    if unfinished:
        connection.rollback()
        return unfinished[0]
    number = 1 + max((int(name[1:]) for name in there), default=0)
    schema = f"g{number:04}"
    connection.exec_driver_sql(_worded("CREATE SCHEMA {}", schema))
    connection.commit()
    return schema


def _migrate(connection: Connection, schema: str) -> None:
    from alembic import command

    config = alembic_config(connection)
    config.attributes[SCHEMAS_ATTRIBUTE] = [schema]
    command.upgrade(config, "head")


def _finish(connection: Connection, schema: str, *, is_open: bool) -> None:
    """Have it known, with the privileges of whoever runs the service."""
    count_apart(connection, schema, [*ready_groups(connection), schema])
    for role in roles_of_service(connection):
        grant_in_group(connection, schema, role)
    ready = insert(UserGroup).values(schema=schema, is_open=is_open).on_conflict_do_nothing()
    connection.execute(ready)
    connection.commit()


def _worded(statement: str, *names: str) -> str:
    worded: str = sql.SQL(statement).format(*map(sql.Identifier, names)).as_string()  # pyright: ignore[reportArgumentType]  our own text
    return worded
