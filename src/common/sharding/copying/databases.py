"""The two databases of a copy: whose tables are where, how rows are read, how they are written."""

import uuid
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.errors import DeadlockDetected, InsufficientPrivilege, LockNotAvailable
from psycopg.sql import Composable
from sqlalchemy import Connection
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from src.common.exceptions import SettingsError
from src.common.postgres.routes import SHARED_SCHEMA
from src.common.postgres.sides import Side, side_here
from src.common.sharding.groups import ready_groups

_ALIKE = """SELECT set_config(name, value, true) FROM (VALUES ('timezone', 'UTC'),
  ('datestyle', 'ISO'), ('bytea_output', 'hex'), ('extra_float_digits', '1'), ('jit', 'off'),
  ('search_path', 'public'), ('statement_timeout', '0'), ('lock_timeout', '0'),
  ('idle_in_transaction_session_timeout', '0'), ('transaction_timeout', '0'))
  AS alike (name, value) WHERE current_setting(name, true) IS NOT NULL"""
"""Rows are compared as text, which is the same on both servers under the same settings. Before
PostgreSQL 17 there is no time-out of whole database transactions."""
_HAS_ROWS = "SELECT EXISTS (SELECT FROM {})"
_OF_EVENTS = ("stripe_events", "unmatched_payments")
"""What a service has before its first user."""
_TABLES = """SELECT schemaname::text, tablename::text FROM pg_tables
  WHERE schemaname = ANY (%s) AND tablename <> 'alembic_version' ORDER BY 1, 2"""
_LOCK_TRIES = 5
_MAY_NOT_WRITE = (
    "This role may not write rows as they are elsewhere, past the ledger's triggers: copy as a "
    "superuser, or have one run GRANT SET ON PARAMETER session_replication_role TO the role"
)


@dataclass
class Database:
    """One side of a copy, reached as the owner of its tables."""

    connection: Connection
    """Of no other use meanwhile: the copy begins and ends its database transactions."""
    groups: list[str]
    """Empty where all tables are in `public`."""
    is_held: bool = field(default=False, init=False)
    """Whether nobody else writes there just now."""

    @property
    def raw(self) -> psycopg.Connection[Any]:
        """The driver's own connection, which can COPY."""
        raw: psycopg.Connection[Any] = self.connection.connection.driver_connection  # type: ignore[assignment]  # both engines' driver
        return raw

    @property
    def users_schemas(self) -> list[str]:
        """Where the tables of users are."""
        return self.groups or [SHARED_SCHEMA]

    @property
    def schemas(self) -> list[str]:
        """Where there are tables."""
        return [SHARED_SCHEMA, *self.groups]

    def run(self, statement: LiteralString, *parts: Composable) -> psycopg.Cursor[Any]:
        """Execute a statement with names and values filled in."""
        return self.raw.execute(sql.SQL(statement).format(*parts))

    def tables(self) -> list[sql.Identifier]:
        """All tables that have rows of the service's."""
        return [sql.Identifier(*row) for row in self.raw.execute(_TABLES, [self.schemas])]

    @contextmanager
    def snapshot(self) -> Generator[None]:
        """Read what is committed now, and nothing later, within the block.

        Within `held` that is so anyway. In any other database transaction PostgreSQL refuses it.
        """
        if self.is_held:
            yield
            return
        self.raw.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        self.raw.execute(_ALIKE)
        try:
            yield
        finally:
            self.raw.rollback()

    @contextmanager
    def held(self, mode: LiteralString = "SHARE ROW EXCLUSIVE") -> Generator[None]:
        """Let nobody else write within the block; committed at its end.

        Reading goes on, unless `mode` excludes it. Who is in the way is waited for. Who comes later
        waits as long as its patience is.

        Raises:
            LockNotAvailable: somebody is in the way for too long.
        """
        tables = sql.SQL(", ").join(self.tables())
        tries = Retrying(
            retry=retry_if_exception_type((DeadlockDetected, LockNotAvailable)),
            stop=stop_after_attempt(_LOCK_TRIES),
            reraise=True,
        )
        try:
            for attempt in tries:
                with attempt:
                    self.raw.rollback()
                    # What was committed while we waited is seen, whatever the database's default.
                    self.raw.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
                    self.raw.execute(_ALIKE)
                    self.raw.execute("SET LOCAL lock_timeout = '3s'")  # others wait behind us
                    self.run("LOCK TABLE {} IN {} MODE", tables, sql.SQL(mode))
            self.is_held = True
            yield
            self.commit()
        finally:
            self.is_held = False
            self.raw.rollback()

    def commit(self) -> None:
        """Have what was done stay, also before the end of a block."""
        self.raw.commit()

    @contextmanager
    def writing(self) -> Generator[None]:
        """Write rows as they are elsewhere within the block; committed at its end.

        For this connection alone no trigger runs: they would refuse a history that is not written
        operation by operation, and tell of it anew. Unique keys and checks hold.

        Raises:
            SettingsError: the role may not do so.
        """
        try:
            self.raw.execute(_ALIKE)
            self.pass_triggers()
            yield
            self.commit()
        finally:
            self.raw.rollback()

    def pass_triggers(self) -> None:
        """Have no trigger run for this connection until the database transaction ends.

        Raises:
            SettingsError: the role may not do so.
        """
        try:
            self.raw.execute("SET LOCAL session_replication_role = replica")
        except InsufficientPrivilege:
            raise SettingsError(_MAY_NOT_WRITE) from None

    def revisions(self) -> set[str]:
        """Those that its schemas are at."""
        return {
            row[0]
            for schema in self.schemas
            for row in self.run(
                "SELECT version_num FROM {}", sql.Identifier(schema, "alembic_version")
            )
        }

    def has_negative_balances(self) -> bool:
        """Whether some users have; such as were there before the ledger."""
        return any(
            self.run(
                "SELECT FROM {} WHERE credits_balance < 0 LIMIT 1", sql.Identifier(schema, "users")
            ).fetchall()
            for schema in self.users_schemas
        )

    def has_served(self) -> bool:
        """Whether somebody signed up there, or Stripe told of something."""
        tables = [(SHARED_SCHEMA, table) for table in _OF_EVENTS]
        tables += [(schema, "users") for schema in self.users_schemas]
        return any(
            self.run(_HAS_ROWS, sql.Identifier(*table)).fetchall() == [(True,)] for table in tables
        )

    def count_users(self) -> int:
        """How many users there are."""
        counted = [
            self.run("SELECT count(*) FROM {}", sql.Identifier(schema, "users")).fetchall()
            for schema in self.users_schemas
        ]
        return sum(row[0] for [row] in counted)

    def users_after(self, last: uuid.UUID | None, limit: int) -> list[uuid.UUID]:
        """The next users by their ids."""
        after: Composable = sql.SQL("true")
        if last is not None:
            after = sql.SQL("user_id > {}").format(sql.Literal(last))
        found = self.run(
            "SELECT user_id FROM {} WHERE {} ORDER BY user_id LIMIT {}",
            sql.Identifier(SHARED_SCHEMA, "users_directory" if self.groups else "users"),
            after,
            sql.Literal(limit),
        )
        return [row[0] for row in found]

    def places_of(self, user_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, str]:
        """In which schema each user's rows are; those who are not there are missing."""
        users = sql.Literal(list(user_ids))
        if self.groups:
            return dict(
                self.run(
                    "SELECT user_id, schema FROM public.users_directory WHERE user_id = ANY ({})",
                    users,
                ).fetchall()
            )
        here = self.run("SELECT user_id FROM public.users WHERE user_id = ANY ({})", users)
        return {row[0]: SHARED_SCHEMA for row in here}


def database_of(connection: Connection) -> Database:
    """What this connection leads to."""
    is_divided = side_here(connection) is Side.EVERYBODY
    found = Database(connection, ready_groups(connection) if is_divided else [])
    connection.rollback()
    return found


def by_place(places: dict[uuid.UUID, str]) -> dict[str, list[uuid.UUID]]:
    """The users of each schema."""
    found: dict[str, list[uuid.UUID]] = {}
    for user_id, schema in places.items():
        found.setdefault(schema, []).append(user_id)
    return found
