"""Every error this project raises on purpose: a sentence, an `error_type` and a kind.

ExceptionWithErrorType(message, error_type)
├── NotFound            kind NOT_FOUND
├── Conflict            kind CONFLICT
│   └── InProgress      with retry_after_seconds
├── Invalid             kind INVALID
├── BadRequest          kind BAD_REQUEST
├── Unauthenticated     kind UNAUTHENTICATED
├── Forbidden           kind FORBIDDEN
├── Inconsistent        kind INCONSISTENT
├── Unavailable         kind UNAVAILABLE, with retry_after_seconds
│   └── DatabaseBusy    DATABASE_BUSY
│       └── RetryableDatabaseError  what both drivers' transient errors become:
│                                   `src/common/postgres/errors.py`, for it is SQLAlchemy's too
└── SettingsError       kind MISCONFIGURED

The edges map the kind: `src/api/src/errors.py` to an HTTP status, `src/cli/exit_codes.py` to an
exit code. `error_type` is stable for ever; tests and programs look at it, never at the sentence.
"""

from enum import StrEnum
from typing import Any, ClassVar


class ErrorKind(StrEnum):
    """What an error means to whoever called, whatever the surface."""

    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    INVALID = "invalid"
    PAYMENT_REQUIRED = "payment_required"
    BAD_REQUEST = "bad_request"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    UNAVAILABLE = "unavailable"
    BAD_GATEWAY = "bad_gateway"
    MISCONFIGURED = "misconfigured"
    INCONSISTENT = "inconsistent"


# The document raises ExceptionWithErrorType itself, with nothing but a type: these are the
# types whose meaning is known without a subclass.
_KIND_BY_ERROR_TYPE = {"USER_NOT_FOUND": ErrorKind.NOT_FOUND}


class ExceptionWithErrorType(Exception):
    """An expected failure: a sentence for people and a stable `error_type` for programs.

    It can be raised as in the document: `ExceptionWithErrorType("User not found",
    "USER_NOT_FOUND")`. `message` is the sentence. `details` are further fields of the error's body
    over HTTP. They never hold secrets or personal data.
    """

    kind: ErrorKind = ErrorKind.INVALID
    retry_after_seconds: ClassVar[int | None] = None
    """After how many seconds the same request may succeed; None where waiting does not help."""

    def __init__(self, message: str, error_type: str, **details: Any) -> None:
        super().__init__(message, error_type)
        self.message = message
        self.error_type = error_type
        self.details = details
        if type(self) is ExceptionWithErrorType:
            self.kind = _KIND_BY_ERROR_TYPE.get(error_type, ErrorKind.INVALID)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        """As it is, from one process to another: `__init__` may take less than there is."""
        return type(self).__new__, (type(self), *self.args), vars(self)


class NotFound(ExceptionWithErrorType):
    """What was asked for does not exist."""

    kind = ErrorKind.NOT_FOUND


class Conflict(ExceptionWithErrorType):
    """The request contradicts what is there already."""

    kind = ErrorKind.CONFLICT


class InProgress(Conflict):
    """Another caller's try of the same request is under way."""

    retry_after_seconds = 1


class Invalid(ExceptionWithErrorType):
    """The request is well-formed but its values are not acceptable."""

    kind = ErrorKind.INVALID


class BadRequest(ExceptionWithErrorType):
    """The request lacks something without which it cannot be judged at all."""

    kind = ErrorKind.BAD_REQUEST


class Unauthenticated(ExceptionWithErrorType):
    """The request does not prove who sends it."""

    kind = ErrorKind.UNAUTHENTICATED


class Forbidden(ExceptionWithErrorType):
    """The caller is known, and may not do this."""

    kind = ErrorKind.FORBIDDEN


class Inconsistent(ExceptionWithErrorType):
    """What is stored contradicts itself; somebody has to look at it."""

    kind = ErrorKind.INCONSISTENT


class SettingsError(ExceptionWithErrorType):
    """The configuration is incomplete or unsafe; the sentence says which setting and what to do."""

    kind = ErrorKind.MISCONFIGURED

    def __init__(self, message: str) -> None:
        super().__init__(message, "SETTINGS_INVALID")


class Unavailable(ExceptionWithErrorType):
    """A passing condition: the same request may succeed in `retry_after_seconds`."""

    kind = ErrorKind.UNAVAILABLE
    retry_after_seconds = 1


class DatabaseBusy(Unavailable):
    """The database cannot serve this now: no free connection, a lock not granted, no server."""

    def __init__(self, message: str = "The database is busy; try again shortly.") -> None:
        super().__init__(message, "DATABASE_BUSY")
