"""What to do about a database error: wait, or mend the configuration.

A condition that passes names the server, and what to do if it does not pass. What no other try
mends (a password, a role, a database or tables that are not there) is a SettingsError. Neither says
the password.
"""

import re
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from src.common.database_settings import Address
from src.common.exceptions import DatabaseBusy, ExceptionWithErrorType, SettingsError
from src.common.postgres.errors import (
    NO_AGREED_TLS,
    NOT_REACHABLE,
    TOO_MANY_CONNECTIONS,
    RetryableDatabaseError,
    is_refused,
    sqlstate_of,
)
from src.common.postgres.migrations import describe_revision
from src.common.settings import Settings

_NOT_THERE = {
    "42P01": "table",
    "42703": "column",
    "42704": "type",
    "42883": "function",
    "3F000": "schema",
}
_INSUFFICIENT_PRIVILEGE = "42501"
# The driver's words before libpq's, libpq's before the server's, and the severity, whose two
# spaces no language changes.
_BEFORE_THE_REASON = re.compile(
    r"^(connection (failed|is bad): )?(connection to server .*? failed: )?([^\s:]+:  )?"
)
_WHAT_TO_DO = (
    ("unsupported startup parameter", "a pooler answers there: set DATABASE_POOLER"),
    (NO_AGREED_TLS, "correct PGSSLMODE and its certificates, or the server's TLS"),
    (r"^database .* does not exist", "correct DATABASE_NAME, or make that database"),
    (r"password|^role ", "correct DATABASE_USER or DATABASE_PASSWORD"),
    (r"", "correct DATABASE_HOST, DATABASE_NAME, DATABASE_USER or DATABASE_PASSWORD"),
)
"""By what the server said, in its usual language; else all that it may be."""


def explain_database_error(
    error: DBAPIError, settings: Settings, find_revision: Callable[[], str | None]
) -> ExceptionWithErrorType | None:
    """The one sentence to say in place of this error; None where it is a defect.

    `find_revision` asks the database for its revision, and is called only where that may be it.
    """
    if isinstance(error, RetryableDatabaseError):
        return DatabaseBusy(_passing(error, settings))
    sqlstate = sqlstate_of(error)
    if is_refused(error):
        reason = _reason(error)
        what_to_do = next(advice for said, advice in _WHAT_TO_DO if re.search(said, reason))
        return SettingsError(f"{_server(error, settings)} refuses: {reason}; {what_to_do}")
    if sqlstate == _INSUFFICIENT_PRIVILEGE:
        return SettingsError(
            f"The database refuses: {_reason(error)}; run `flashslides db grant-runtime` as the "
            "tables' owner, or correct DATABASE_USER"
        )
    if is_not_there(error):
        sentence = describe_revision(find_revision())
        return None if sentence is None else SettingsError(sentence)
    return None


def is_not_there(error: DBAPIError) -> bool:
    """Whether what a statement names is missing: tables that are not migrated, or a defect."""
    return sqlstate_of(error) in _NOT_THERE


def _passing(error: RetryableDatabaseError, settings: Settings) -> str:
    if error.reason == NOT_REACHABLE:
        return (
            f"No database server answers at {_address(error, settings)} ({_reason(error)}): start "
            "it, or correct DATABASE_HOST and DATABASE_PORT"
        )
    if error.sqlstate == TOO_MANY_CONNECTIONS:
        return (
            f"{_server(error, settings)} has no connection left: try again shortly, or "
            "raise its max_connections"
        )
    return f"{_server(error, settings)} is busy ({error.reason}): try again shortly"


def _server(error: DBAPIError, settings: Settings) -> str:
    if settings.database_host is None and settings.is_local:
        return "The embedded database server"
    return f"The database server at {_address(error, settings)}"


def _address(error: DBAPIError, settings: Settings) -> str:
    """Where the connection led, as libpq knows; of several hosts, where the settings lead."""
    addresses = settings.database_addresses
    tried = getattr(error.orig, "pgconn", None)
    if len(addresses) <= 1 and tried is not None and tried.host:
        addresses = (Address(tried.host.decode(), int(tried.port)),)
    return ", ".join(map(str, addresses)) or f"localhost:{settings.database_port}"


def _reason(error: DBAPIError) -> str:
    """The first line of what the server, or libpq, said."""
    return _BEFORE_THE_REASON.sub("", str(error.orig).partition("\n")[0])
