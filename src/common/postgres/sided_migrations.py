"""Runs the migrations of one side where a schema has that side's tables alone (`sides.py`).

Used by Alembic's `env.py`.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from alembic.runtime.migration import MigrationStep, RevisionStep
from sqlalchemy import Connection

from src.common.postgres.sides import (
    ON_BOTH_SIDES,
    USERS_TABLES,
    Side,
    look_up_in_public,
)

_TRIGGERS_ON_CITUS = "SET citus.enable_unsafe_triggers = on"
"""Ours look at rows of their group, and at what is on every node. Means nothing without Citus."""
StepsOf = Callable[[Any, Any], Iterator[MigrationStep]]
"""What an Alembic command has done, given the revisions a database is at."""


@dataclass
class OfSide:
    """The same steps, of which those of the other side do nothing."""

    steps_of: StepsOf
    connection: Connection
    side: Side
    """Of the schema at hand."""

    def __call__(self, heads: Any, migration_context: Any) -> Iterator[MigrationStep]:
        """As Alembic asks for them."""
        for step in self.steps_of(heads, migration_context):
            if isinstance(step, RevisionStep):
                whose = getattr(step.revision.module, "TABLES_OF", None)
                if whose is self.side is Side.USERS:
                    step.migration_fn = _looking_up_afterwards(step.migration_fn, self.connection)
                elif whose not in {None, self.side}:
                    step.migration_fn = _do_nothing
            yield step


@contextmanager
def seen_alone(connection: Connection, schema: str) -> Generator[None]:
    """Have this connection see no schema but this one, so that nothing else is changed by chance.

    After an error the connection is to be closed.
    """
    connection.exec_driver_sql(f"SET search_path = {schema}")
    connection.exec_driver_sql(_TRIGGERS_ON_CITUS)
    connection.commit()
    yield
    connection.rollback()
    connection.exec_driver_sql("RESET search_path")
    connection.commit()


def _looking_up_afterwards(
    migrate: Callable[..., None], connection: Connection
) -> Callable[..., None]:
    def migrate_and_look_up(**given: Any) -> None:
        migrate(**given)
        look_up_in_public(connection)

    return migrate_and_look_up


def _do_nothing(**_given: Any) -> None:
    """Of a migration of the other side."""


def is_of_side(
    side: Side, thing: Any, name: str | None, kind: str, _reflected: object, _other: object
) -> bool:
    """Whether `alembic check` is to compare this where a schema has one side alone."""
    table = thing.name if kind == "table" else thing.table.name
    if side is Side.USERS:
        return table in USERS_TABLES and name != "home" and kind != "foreign_key_constraint"
    is_here = table not in USERS_TABLES or table in ON_BOTH_SIDES
    return is_here and kind != "foreign_key_constraint"
