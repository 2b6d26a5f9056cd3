"""The rows about everybody: compared row by row, by their keys, and copied in portions."""

from collections.abc import Generator, Sequence
from functools import cached_property
from typing import Any

from psycopg import sql
from psycopg.sql import Composable, Composed
from sqlalchemy import Table

from src.common.models.every_table import Base
from src.common.postgres.routes import SHARED_SCHEMA
from src.common.postgres.sides import USERS_TABLES
from src.common.sharding.copying.databases import Database
from src.common.sharding.copying.parity import Content
from src.common.sharding.copying.users_rows import columns_of, stream

_OF_ITS_OWN = {"users_directory", "payments_directory", "user_groups", "group_turns"}
"""What each database has for its own groups."""
_SIGNS_OF_LIFE = "worker_heartbeats"
"""Of processes that work at one database, and never at the other."""
_WAITING = "stripe_reversals"
"""Copied so as far as it waits for its payment, and is no user's yet."""

Key = tuple[Any, ...]


class SharedTable:
    """A table whose rows are nobody's, or everybody's."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._columns = columns_of(table)

    @property
    def name(self) -> str:
        """As PostgreSQL has it; what waits is told from what is a user's."""
        return f"{_WAITING} (waiting)" if self._is_waiting else self._table.name

    def keys_after(self, database: Database, last: Key | None, limit: int) -> list[Key]:
        """The next keys, in the order that this database has."""
        after: Composable = sql.SQL("true")
        if last is not None:
            after = sql.SQL("({}) > {}").format(self._key, _row(last))
        found = database.run(
            "SELECT {} FROM {} AS rows WHERE {} ORDER BY {} LIMIT {}",
            *(self._key, self._rows(database), after, self._key, sql.Literal(limit)),
        )
        return [tuple(row) for row in found]

    def read_contents(self, database: Database, keys: Sequence[Key]) -> dict[Key, Content]:
        """Which of these rows are there, and a digest of each."""
        found = database.run(
            "SELECT sha256(convert_to(ROW({})::text, 'UTF8')), {} FROM {} AS rows WHERE {}",
            *(self._columns, self._key, self._rows(database), self._is_any(keys)),
        )
        return {tuple(key): Content(1, digest) for digest, *key in found}

    def delete(self, database: Database, keys: Sequence[Key]) -> None:
        """Delete these rows, wherever they are."""
        for schema in self._schemas(database):
            database.run(
                "DELETE FROM {} AS rows WHERE {}{}",
                *(sql.Identifier(schema, self._table.name), self._is_any(keys)),
                sql.SQL(" AND transaction_id IS NULL" if self._is_waiting else ""),
            )

    def copy(self, source: Database, target: Database, keys: Sequence[Key]) -> None:
        """Copy these rows."""
        reading = sql.SQL("COPY (SELECT {} FROM {} AS rows WHERE {}) TO STDOUT").format(
            self._columns, self._rows(source), self._is_any(keys)
        )
        writing = sql.SQL("COPY {} ({}) FROM STDIN").format(
            sql.Identifier(SHARED_SCHEMA, self._table.name), self._columns
        )
        stream(source, reading, target, writing)

    @property
    def _is_waiting(self) -> bool:
        return self._table.name == _WAITING

    @cached_property
    def _key(self) -> Composed:
        return sql.SQL(", ").join(sql.Identifier(each.name) for each in self._table.primary_key)

    def _schemas(self, database: Database) -> list[str]:
        """What waits and is as good as a user's may be in that user's group."""
        return database.schemas if self._is_waiting else [SHARED_SCHEMA]

    def _rows(self, database: Database) -> Composed:
        condition = sql.SQL("transaction_id IS NULL" if self._is_waiting else "true")
        return sql.SQL("({})").format(
            sql.SQL(" UNION ALL ").join(
                sql.SQL("SELECT {} FROM {} WHERE {}").format(
                    self._columns, sql.Identifier(schema, self._table.name), condition
                )
                for schema in self._schemas(database)
            )
        )

    def _is_any(self, keys: Sequence[Key]) -> Composed:
        return sql.SQL("({}) IN ({})").format(self._key, sql.SQL(", ").join(map(_row, keys)))


def shared_tables() -> list[SharedTable]:
    """All of them that are copied."""
    left = (USERS_TABLES - {_WAITING}) | _OF_ITS_OWN | {_SIGNS_OF_LIFE}
    return [
        SharedTable(table)
        for name, table in sorted(Base.metadata.tables.items())
        if name not in left
    ]


def pages(table: SharedTable, database: Database, size: int) -> Generator[list[Key]]:
    """All keys, in portions, each of a snapshot of its own; nothing that stays is passed over."""
    last: Key | None = None
    while True:
        with database.snapshot():
            keys = table.keys_after(database, last, size)
        if not keys:
            return
        yield keys
        last = keys[-1]


def _row(key: Key) -> Composed:
    return sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Literal, key)))
