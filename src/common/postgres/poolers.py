"""Finds out whether a pooler stands before PostgreSQL, and of which kind, by what it answers.

PostgreSQL tells each client the number of the process that serves it; so does a pooler, and makes
one up. Which mode a pooler has shows where two clients meet the same process.
"""

from contextlib import ExitStack, closing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import psycopg

from src.common.exceptions import DatabaseBusy
from src.common.postgres.engines import database_url
from src.common.postgres.hosts import libpq_parameters
from src.common.postgres.silent_servers import PatientConnection
from src.common.settings import Settings

PATIENCE_SECONDS = 5.0
"""A pooler without a free connection keeps its clients waiting, by default for minutes."""
_ROUNDS = 5
_CONSOLE = "pgbouncer"
"""The database of PgBouncer's own, which answers those whom its configuration names."""
_OLDER, _NEWER = "PgBouncer before 1.20", "PgBouncer 1.20 or later"
_REFUSED_OPTIONS = "unsupported startup parameter: options"
_REFUSED_SETTING = "unsupported startup parameter in options"


class Sharing(StrEnum):
    """For how long a client has a connection of the server's to itself."""

    SESSION = "session"
    TRANSACTION = "transaction"
    STATEMENT = "statement"


@dataclass(frozen=True)
class Pooler:
    """What stands there."""

    name: str
    """As far as it told: `PgBouncer 1.18.0`, `PgBouncer before 1.20`, `a pooler`."""
    sharing: Sharing
    prepared_statements_max: int | None = None
    """How many prepared statements it keeps for each client; None where it did not say."""

    @property
    def keeps_prepared_statements(self) -> bool | None:
        """Whether `DATABASE_POOLER=prepared` works behind it; None where nobody knows."""
        if self.sharing is Sharing.SESSION:
            return True
        if self.prepared_statements_max is not None:
            return self.prepared_statements_max > 0
        return False if self.name == _OLDER else None


def find_pooler(settings: Settings) -> Pooler | None:
    """What stands between these settings' address and PostgreSQL; None where nothing does.

    Raises:
        psycopg.Error: the address cannot be reached, or refuses us.
        DatabaseBusy: a pooler stands there, and has no connection left.
    """
    with ExitStack() as stack:
        first = stack.enter_context(closing(_connection(settings)))
        if _process_serving(first) == first.info.backend_pid:
            return None
        try:
            second = stack.enter_context(closing(_connection(settings)))
            sharing = _sharing(first, second)
        except psycopg.errors.ProtocolViolation:
            sharing = Sharing.STATEMENT  # which refuses BEGIN
        except psycopg.OperationalError as error:
            raise DatabaseBusy(
                "A pooler stands before the database, and has no connection left to find out of "
                "which kind it is"
            ) from error
    return _introduced(settings, sharing)


def _sharing(first: psycopg.Connection[Any], second: psycopg.Connection[Any]) -> Sharing:
    """How a pooler shares: several times, as others may come between."""
    for _ in range(_ROUNDS):
        before = _process_serving(first)
        second.execute("BEGIN")
        is_shared = _process_serving(second) == before or _process_serving(first) != before
        second.execute("ROLLBACK")
        if is_shared:
            return Sharing.TRANSACTION
    return Sharing.SESSION


def _process_serving(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None  # noqa: S101  a SELECT without FROM has one row
    return int(row[0])


def _introduced(settings: Settings, sharing: Sharing) -> Pooler:
    """Who the pooler is: by its console, or else by how it refuses what it does not support."""
    try:
        with closing(_connection(settings, dbname=_CONSOLE)) as console:
            [(name,)] = console.execute("SHOW VERSION").fetchall()
            told = {row[0]: row[1] for row in console.execute("SHOW CONFIG").fetchall()}
    except (psycopg.Error, ValueError):
        return Pooler(_name_by_refusal(settings), sharing)
    return Pooler(str(name), sharing, int(told.get("max_prepared_statements", 0)))


def _name_by_refusal(settings: Settings) -> str:
    try:
        _connection(settings, options="-c statement_timeout=0").close()
    except psycopg.OperationalError as error:
        if _REFUSED_SETTING in str(error):
            return _NEWER
        if _REFUSED_OPTIONS in str(error):
            return _OLDER
    return "a pooler"


def _connection(settings: Settings, **others: str) -> psycopg.Connection[Any]:
    """A connection of its own, as the sync engine's, but without anything a pooler refuses."""
    url = database_url(settings)
    _, named = url.get_dialect()().create_connect_args(url)
    parameters: dict[str, Any] = {**named, **libpq_parameters(settings), **others}
    connection = PatientConnection.connect(autocommit=True, **parameters)
    connection.patience = PATIENCE_SECONDS
    connection.prepare_threshold = None
    return connection
