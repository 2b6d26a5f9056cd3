"""Runs the ledger's statements in a session's own database transaction, as SQL compiled once.

SQLAlchemy makes a cache key of a statement at every execution, and of these that takes longer than
sending them. Its drivers, its events at the cursor and its errors are used as ever.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, CursorResult, Dialect
from sqlalchemy.sql import ClauseElement

STATEMENTS_MAX = 200
"""How many statements are kept compiled."""


class _Compiled(NamedTuple):
    """A statement as a driver takes it."""

    sql: str
    names: tuple[str, ...] | None
    """Of its parameters, in their order; None where the driver takes them by name."""


def run(
    connection: Connection, statement: ClauseElement, parameters: Mapping[str, Any]
) -> CursorResult[*tuple[Any, ...]]:
    """Run the statement: the very same object every time, since it is known by its identity.

    Values are given and returned as the drivers have them: of the types that the ledger's
    statements use, none needs SQLAlchemy in between.
    """
    sql, names = _compile(statement, type(connection.dialect))  # type: ignore[arg-type]  # hashable
    given = dict(parameters) if names is None else tuple(parameters[name] for name in names)
    return connection.exec_driver_sql(sql, given)


@lru_cache(STATEMENTS_MAX)
def _compile(statement: ClauseElement, dialect: type[Dialect]) -> _Compiled:
    compiled: Any = statement.compile(dialect=dialect())
    return _Compiled(str(compiled), tuple(compiled.positiontup) if compiled.positional else None)
