"""What a database error means, read from its SQLSTATE and constraint name, whichever driver.

psycopg and asyncpg wrap the same server errors differently; these functions are the only place
that knows. Nothing here reads an error's message text except where PostgreSQL gives no code.
"""

from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError, IntegrityError

from src.common.exceptions import RetryableDatabaseError

if TYPE_CHECKING:
    from sqlalchemy.engine import ExceptionContext

SERIALIZATION_FAILURE = "40001"
DEADLOCK_DETECTED = "40P01"
FEATURE_NOT_SUPPORTED = "0A000"

# Appendix A of PostgreSQL's manual. Class 08 (connection exceptions) is transient as a whole.
_TRANSIENT = {
    SERIALIZATION_FAILURE: "serialization failure",
    DEADLOCK_DETECTED: "deadlock",
    "55P03": "lock not granted in time",
    "57014": "statement took too long",
    "25P03": "idle in a database transaction for too long",
    "53300": "too many connections",
    "57P01": "server shutting down",
    "57P02": "server crashed",
    "57P03": "server starting or stopping",
    "25006": "server read-only",
}
_CONNECTION_EXCEPTIONS = "08"
STALE_PLAN = "cached plan out of date"


def sqlstate_of(error: DBAPIError) -> str | None:
    """PostgreSQL's five-character code, or None where no server answered."""
    return getattr(error.orig, "sqlstate", None) or getattr(
        getattr(error.orig, "__cause__", None), "sqlstate", None
    )


def violated_constraint(error: IntegrityError) -> str | None:
    """The name of the constraint an IntegrityError is about, on either driver.

    A caller translates the error only for a constraint it knows by name; any other propagates.
    """
    diagnostics = getattr(error.orig, "diag", None)
    if diagnostics is not None:
        return diagnostics.constraint_name
    return getattr(getattr(error.orig, "__cause__", None), "constraint_name", None)


def translate_transient_error(context: "ExceptionContext") -> RetryableDatabaseError | None:
    """SQLAlchemy's `handle_error` hook: a transient condition becomes the one retryable error."""
    error = context.sqlalchemy_exception
    if isinstance(error, RetryableDatabaseError):
        return None
    if not isinstance(error, DBAPIError):
        # asyncpg reports a server that cannot be reached as the plain OSError it got.
        if isinstance(context.original_exception, OSError | TimeoutError):
            return RetryableDatabaseError(None, None, "server not reachable")
        return None
    sqlstate = sqlstate_of(error)
    reason = _transient_reason(sqlstate, error)
    if reason is None and context.is_disconnect:
        reason = "connection lost"
    return None if reason is None else RetryableDatabaseError(sqlstate, error, reason)


def _transient_reason(sqlstate: str | None, error: DBAPIError) -> str | None:
    if sqlstate is None:
        # libpq reports a server that cannot be reached without a code.
        return "server not reachable" if error.orig and error.statement is None else None
    if sqlstate.startswith(_CONNECTION_EXCEPTIONS):
        return "connection lost"
    if sqlstate == FEATURE_NOT_SUPPORTED and "cached" in str(error.orig):
        return STALE_PLAN  # a migration changed a table under a prepared statement
    return _TRANSIENT.get(sqlstate)
