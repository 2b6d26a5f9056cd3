"""What a database error means, read from its SQLSTATE and constraint name, whichever driver.

psycopg and asyncpg wrap the same server errors differently; these functions are the only place
that knows. An error's message text is read only where there is no telling code: libpq hands none
over while connecting, and PgBouncer has one code for everything.
"""

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from src.common.exceptions import DatabaseBusy, Unavailable
from src.common.postgres.confirmed_commits import CommitNotConfirmed

if TYPE_CHECKING:
    from sqlalchemy.engine import ExceptionContext

SERIALIZATION_FAILURE = "40001"
DEADLOCK_DETECTED = "40P01"
FEATURE_NOT_SUPPORTED = "0A000"
READ_ONLY = "25006"
QUERY_CANCELED = "57014"
LOCK_NOT_AVAILABLE = "55P03"
CONTENTION = frozenset(
    {SERIALIZATION_FAILURE, DEADLOCK_DETECTED, LOCK_NOT_AVAILABLE, QUERY_CANCELED}
)
"""What is wrong with the rows that one database transaction is about, not with the server."""
TOO_MANY_CONNECTIONS = "53300"
_CANNOT_CONNECT_NOW = "57P03"
_CONNECTION_FAILURE = "08006"
_PROTOCOL_VIOLATION = "08P01"
_INTERNAL_ERROR = "XX000"

STALE_PLAN = "cached plan out of date"
CONNECTION_LOST = "connection lost"
NOT_CONFIRMED = "commit not confirmed by the standbys"
NOT_REACHABLE = "server not reachable"
LOCK_NOT_GRANTED = "lock not granted in time"
SERVER_READ_ONLY = "server read-only"
DATABASE_CLOSED = "database closed: its users are in another one, or are copied here"

# Appendix A of PostgreSQL's manual. Classes 08 (connection exceptions) and 53 (insufficient
# resources: connections, memory, disk) are transient as a whole.
_TRANSIENT = {
    SERIALIZATION_FAILURE: "serialization failure",
    DEADLOCK_DETECTED: "deadlock",
    "40003": "statement completion unknown",
    LOCK_NOT_AVAILABLE: LOCK_NOT_GRANTED,
    QUERY_CANCELED: "statement took too long",
    "25P03": "idle in a database transaction for too long",
    "25P04": "database transaction took too long",
    TOO_MANY_CONNECTIONS: "too many connections",
    "57P01": "server shutting down",
    "57P02": "server crashed",
    _CANNOT_CONNECT_NOW: "server starting or stopping",
    "57P05": "idle connection closed",
    READ_ONLY: SERVER_READ_ONLY,
}
_CONNECTION_EXCEPTIONS = "08"
_INSUFFICIENT_RESOURCES = "53"
OUT_OF_RESOURCES = "server out of resources"
STANDBY = "server is a standby, whose answers may lag"
_QUOTING_VALUES = ("22", "23")
"""Data exceptions and constraint violations: their texts quote values, their DETAIL whole rows."""
CLOSED = "DATABASE_CLOSED"
"""How the message of the trigger begins that closes a database (decision 0069)."""
_SOCKET_CLOSED = "connection socket closed"
"""What psycopg says where a socket is gone that it waits for."""
_REFUSED_BY_ASYNCPG = "invalid input for query argument"
_QUOTED = re.compile(r"(: |\n).*", re.DOTALL)

# What PostgreSQL, PgBouncer or libpq say to a client who may be welcome in a moment.
_PASSING_REFUSALS = {
    TOO_MANY_CONNECTIONS: r"too many (clients|connections)|slots are reserved|no more connections",
    _CANNOT_CONNECT_NOW: r"the database system is|shutting down|administrator command",
    _CONNECTION_FAILURE: (
        r"cannot connect to server|server login|login failed|query_wait_timeout|"
        r"client_login_timeout|server conn crashed|server closed|server_lifetime"
    ),
    # libpq's own words where DATABASE_TARGET_SESSION_ATTRS asks for what a host is not.
    READ_ONLY: r"server is in hot standby mode|session is read-only",
}
# libpq: "connection to server at … failed: FATAL:  database … does not exist"; the severity's
# name depends on the server's language, the two spaces do not.
_ANSWER_OF_SERVER = re.compile(r"failed: [^\s:]+:  ")
# What libpq says where it and the server cannot agree on TLS, or on whose certificate to trust.
NO_AGREED_TLS = re.compile(
    r"SSL was required|certificate (verify|file|for|present)|certificate from file|"
    r"private key file|(invalid|weak) sslmode"
)


class RetryableDatabaseError(DatabaseBusy, OperationalError):
    """A passing condition of the database, from either driver.

    That is a deadlock, a serialization failure, a lock or statement time-out, a server without a
    free connection or out of reach. psycopg and asyncpg have classes of their own for each. This is
    an OperationalError too, so code written for SQLAlchemy catches it.

    `sqlstate` is PostgreSQL's code of five characters, or None where no server answered. `reason`
    says in a few words what it was.
    """

    def __init__(self, sqlstate: str | None, cause: DBAPIError | None, reason: str) -> None:
        OperationalError.__init__(
            self,
            cause.statement if cause else None,
            None,  # parameters may hold personal data
            (cause.orig if cause else None) or ConnectionError(reason),
            connection_invalidated=cause.connection_invalidated if cause else False,
        )
        self.message = f"The database is busy ({reason}); try again shortly."
        self.error_type = "DATABASE_BUSY"
        self.details: dict[str, Any] = {}
        self.reason = reason
        self.sqlstate = sqlstate

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), (self.sqlstate, None, self.reason)


def sqlstate_of(error: DBAPIError) -> str | None:
    """PostgreSQL's five-character code, or None where no server answered."""
    return getattr(error.orig, "sqlstate", None) or getattr(
        getattr(error.orig, "__cause__", None), "sqlstate", None
    )


def violated_constraint(error: IntegrityError) -> str | None:
    """The name of the constraint an IntegrityError is about, on either driver.

    A caller translates the error only for a constraint it knows by name; any other propagates.
    """
    return _told_by_server(error, "constraint_name", "constraint_name")


def is_ledger_unbalanced(error: DBAPIError) -> bool:
    """Whether the ledger's triggers refused the change (`src/common/models/ledger_triggers.py`)."""
    return sqlstate_of(error) == "P0001" and "LEDGER_UNBALANCED" in str(error.orig)


def concerns_other_rows(error: Exception) -> bool:
    """Whether work on other rows would fail likewise: the database does not serve us."""
    if isinstance(error, RetryableDatabaseError):
        return error.sqlstate not in CONTENTION
    return isinstance(error, Unavailable) or is_refused(error)


def is_refused(error: Exception) -> bool:
    """Whether no connection was made, for what no other try mends, such as a wrong password.

    psycopg reports no code then.
    """
    return (
        isinstance(error, OperationalError)
        and not isinstance(error, RetryableDatabaseError)
        and error.statement is None
        and sqlstate_of(error) is None
    )


def translate_transient_error(context: "ExceptionContext") -> RetryableDatabaseError | None:
    """SQLAlchemy's `handle_error` hook: a transient condition becomes the one retryable error.

    Any other error stays what it is, without the values that its text quotes.
    """
    translated = _translated(context)
    if context.is_disconnect and context.execution_context is not None:
        # SQLAlchemy closes no cursor of a connection that is lost, and psycopg warns of each.
        with suppress(context.dialect.loaded_dbapi.Error):
            context.execution_context.cursor.close()
    return translated


def _translated(context: "ExceptionContext") -> RetryableDatabaseError | None:
    error = context.sqlalchemy_exception
    if not isinstance(error, DBAPIError):
        if not isinstance(context.original_exception, OSError):
            return None
        # asyncpg hands a broken socket's error over as it is.
        context.is_disconnect = True
        if isinstance(context.original_exception, CommitNotConfirmed):
            context.invalidate_pool_on_disconnect = False  # it is the standbys who do not answer
            return RetryableDatabaseError(None, None, NOT_CONFIRMED)
        return RetryableDatabaseError(None, None, CONNECTION_LOST)
    sqlstate = sqlstate_of(error)
    if sqlstate == _PROTOCOL_VIOLATION or (sqlstate is None and context.connection is None):
        sqlstate, reason = _judge_refusal(sqlstate, error)
    else:
        reason = _transient_reason(sqlstate, error)
        if str(error.orig) == _SOCKET_CLOSED:  # and it does not know the connection for closed yet
            context.is_disconnect = error.connection_invalidated = True
    if reason is None and context.is_disconnect:
        reason = CONNECTION_LOST
    if reason is None:
        _leave_out_values(error, sqlstate)
        return None
    if reason == STALE_PLAN or sqlstate == READ_ONLY:
        # Every other pooled connection is as useless: it has the same plan, or leads to what was
        # the primary until a failover. The next attempt must meet a new one.
        context.is_disconnect = True
    return RetryableDatabaseError(sqlstate, error, reason)


def translate_asyncpg_error(error: Exception, *, is_disconnect: bool) -> Exception:
    """The same for an error of asyncpg's own, where SQLAlchemy did not stand in between."""
    import asyncpg  # only where it is in use already: commands use psycopg

    if isinstance(error, CommitNotConfirmed):
        return RetryableDatabaseError(None, None, NOT_CONFIRMED)
    if not isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError):
        return RetryableDatabaseError(None, None, CONNECTION_LOST) if is_disconnect else error
    wrapped = DBAPIError(None, None, error, connection_invalidated=is_disconnect)
    sqlstate = sqlstate_of(wrapped)
    reason = _transient_reason(sqlstate, wrapped)
    if reason is None and is_disconnect:
        reason = CONNECTION_LOST
    if reason is not None:
        return RetryableDatabaseError(sqlstate, wrapped, reason)
    _leave_out_values(wrapped, sqlstate)
    return wrapped


def _transient_reason(sqlstate: str | None, error: DBAPIError) -> str | None:
    if sqlstate is None:
        return None
    if sqlstate.startswith(_CONNECTION_EXCEPTIONS):
        return CONNECTION_LOST
    if _is_stale_plan(sqlstate, error):
        return STALE_PLAN
    if sqlstate.startswith(_INSUFFICIENT_RESOURCES):
        return _TRANSIENT.get(sqlstate, OUT_OF_RESOURCES)
    if sqlstate == READ_ONLY and CLOSED in str(error.orig):
        return DATABASE_CLOSED
    return _TRANSIENT.get(sqlstate)


def _is_stale_plan(sqlstate: str, error: DBAPIError) -> bool:
    """Whether a migration changed a table or a type under what a connection had prepared.

    Told in words that are the same in any language: a function's name, an internal error's message.
    """
    if sqlstate == FEATURE_NOT_SUPPORTED:
        function = _told_by_server(error, "source_function", "server_source_function")
        return function == "RevalidateCachedQuery"
    if sqlstate == _INTERNAL_ERROR:
        # A type made anew has another number. Parameters are asked for by the old one once; a
        # PL/pgSQL function keeps it for its variables as long as the connection lives.
        message = _told_by_server(error, "message_primary", "message") or ""
        return message.startswith("cache lookup failed for type ")
    return False


def _told_by_server(error: DBAPIError, psycopg_name: str, asyncpg_name: str) -> str | None:
    """A field of the server's error report."""
    diagnostics = getattr(error.orig, "diag", None)
    if diagnostics is not None:
        return getattr(diagnostics, psycopg_name, None)
    return getattr(_reported_by_asyncpg(error), asyncpg_name, None)


def _reported_by_asyncpg(error: DBAPIError) -> BaseException | None:
    """Asyncpg's own error; SQLAlchemy raises one of its own from it."""
    import asyncpg

    if isinstance(error.orig, asyncpg.PostgresError):
        return error.orig
    return getattr(error.orig, "__cause__", None)


def _judge_refusal(sqlstate: str | None, error: DBAPIError) -> tuple[str | None, str | None]:
    """The code and reason of a refused connection: a passing condition, or (code, None)."""
    message = str(error.orig)
    for meant, pattern in _PASSING_REFUSALS.items():
        if re.search(pattern, message):
            return meant, _TRANSIENT.get(meant, CONNECTION_LOST)
    asked_for_password = getattr(getattr(error.orig, "pgconn", None), "needs_password", False)
    answered = sqlstate or asked_for_password or _ANSWER_OF_SERVER.search(message)
    answered = answered or NO_AGREED_TLS.search(message)
    return sqlstate, None if answered else NOT_REACHABLE


def _leave_out_values(error: DBAPIError, sqlstate: str | None) -> None:
    """Cut the texts of an error, and of what it was raised from, before they quote people's data.

    `violated_constraint` and psycopg's `orig.diag` still tell the rest to who asks for it.
    """
    classes = _QUOTING_VALUES if sqlstate else _REFUSED_BY_ASYNCPG
    if not (sqlstate or str(error.orig)).startswith(classes):
        return
    reported = _reported_by_asyncpg(error)
    for exception in (error, error.orig, reported):
        if exception is not None and exception.args:
            first, *others = exception.args
            exception.args = (_QUOTED.sub("", str(first)), *others)
    if getattr(reported, "detail", None) is not None:
        reported.detail = None  # type: ignore[union-attr]  # asyncpg writes it into the text
