"""Ends waits for a server that has fallen silent while its sockets stay open.

The server's own time-outs end what it still works on. A server that answers nothing ends nothing,
so the client has a limit too, a little longer than the server's, and then drops the connection.
asyncpg brings such a limit (`command_timeout`), except for what commits; psycopg's is here.
"""

from typing import TYPE_CHECKING, Any, TypeVar, cast

import psycopg
from sqlalchemy import event, text

from src.common.postgres.confirmed_commits import ConfirmingConnection
from src.common.postgres.hosts import HostOrder
from src.common.settings import Settings

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
    from sqlalchemy.orm import Session
    from sqlalchemy.pool import ConnectionPoolEntry

RV = TypeVar("RV")

SILENCE_SECONDS = 5.0
"""How much longer than the server's own limit we wait for it to say so."""
_INTERVAL = 0.1
"""How often a waiting psycopg looks up, for Ctrl-C: its own default."""


def patience_of(settings: Settings) -> float | None:
    """How many seconds to wait for an answer; None where no statement is limited."""
    if not settings.database_statement_timeout_ms:
        return None
    return settings.database_statement_timeout_ms / 1_000 + SILENCE_SECONDS


class PatientConnection(ConfirmingConnection):
    """A connection that gives its server up after `patience` seconds without an answer."""

    patience: float | None = None

    def wait(
        self, gen: "PQGen[RV]", interval: float = _INTERVAL, timeout: float | None = None
    ) -> RV:
        """Wait for the server's answer as psycopg does, but not for ever."""
        if timeout is not None or self.patience is None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.patience)
        except psycopg.errors._WaitTimeout:  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  no public name
            self.close()  # closed tells SQLAlchemy that the connection is lost
            raise psycopg.OperationalError("the server does not answer") from None


def install_patience(engine: "Engine", patience: float | None) -> None:
    """Have this engine's psycopg connections be patient ones, to the first host that will do."""
    order = HostOrder()

    def connect(
        _dialect: "Dialect",
        _entry: "ConnectionPoolEntry",
        arguments: tuple[Any, ...],
        parameters: dict[str, Any],
    ) -> "DBAPIConnection":
        connection = PatientConnection.connect(*arguments, **order.for_libpq(parameters))
        order.note(connection.info.host, connection.info.port)
        connection.patience = patience
        return cast("DBAPIConnection", connection)

    def restore(connection: "DBAPIConnection | None", _entry: "ConnectionPoolEntry") -> None:
        if isinstance(connection, PatientConnection):
            connection.patience = patience

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "checkin", restore)


def limit_silence(connection: "Connection", seconds: float | None) -> None:
    """Have a connection of psycopg's wait so long for an answer, until it is returned."""
    raw = connection.connection.dbapi_connection
    if isinstance(raw, PatientConnection):
        raw.patience = seconds


def lift_time_limits(session: "Session") -> None:
    """Let this session take as long as it needs, until its connection is returned.

    Its statements, and whatever it does between them in its database transaction.
    """
    connection = session.connection()
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
    limit_silence(connection, None)


def answer_lost_pings(engine: "Engine") -> None:
    """Have a ping that asyncpg waited for in vain mean a lost connection, as any other does.

    asyncpg reports it as the plain TimeoutError, which SQLAlchemy's pool passes on.
    """
    ping = engine.dialect.do_ping

    def ping_or_give_up(connection: "DBAPIConnection") -> bool:
        try:
            return ping(connection)
        except OSError:
            return False

    engine.dialect.do_ping = ping_or_give_up  # type: ignore[method-assign,assignment]  # this engine's
