"""Which exit code a command ends with, by the kind of its error."""

from src.common.exceptions import ErrorKind, ExceptionWithErrorType

DONE = 0
FAILED = 1
WRONG_USE = 2
CHECK_FAILS = 2
NOT_FOUND = 3
REFUSED = 4
ASKED = 5
TRY_LATER = 75
MISCONFIGURED = 78
INTERRUPTED = 130

MEANINGS = {
    DONE: "Done. Ctrl-C ends `serve`, `worker` and `stripe serve` so, once they are at work",
    FAILED: (
        "Failed, or found what it looks for: books that differ, work that failed; of `doctor "
        "--strict`: a check warns or could not look"
    ),
    WRONG_USE: "Wrong use, or a value that is not acceptable; of `doctor`: a check fails",
    NOT_FOUND: "There is no such thing",
    REFUSED: "Refused as things stand: too few credits, a deactivated user, a key used before",
    ASKED: "Nothing was done yet: another person has to consent (`approvals`)",
    TRY_LATER: "Try again later (EX_TEMPFAIL): the database or Stripe is out of reach, or busy",
    MISCONFIGURED: "Wrong configuration (EX_CONFIG): settings, the database's role, name, tables",
    INTERRUPTED: "Ended by Ctrl-C",
}
BY_KIND = {
    ErrorKind.INVALID: WRONG_USE,
    ErrorKind.BAD_REQUEST: WRONG_USE,
    ErrorKind.NOT_FOUND: NOT_FOUND,
    ErrorKind.CONFLICT: REFUSED,
    ErrorKind.PAYMENT_REQUIRED: REFUSED,
    ErrorKind.UNAUTHENTICATED: REFUSED,
    ErrorKind.FORBIDDEN: REFUSED,
    ErrorKind.BAD_GATEWAY: TRY_LATER,
    ErrorKind.UNAVAILABLE: TRY_LATER,
    ErrorKind.MISCONFIGURED: MISCONFIGURED,
    ErrorKind.INCONSISTENT: FAILED,
}
"""Of every kind of error."""
_BY_ERROR_TYPE = {"STRIPE_NOT_CONFIGURED": MISCONFIGURED}
"""Of errors that pass for whoever asks over HTTP, and for no operator who tries again."""


def of(error: ExceptionWithErrorType) -> int:
    """The exit code that says what this error asks for."""
    return _BY_ERROR_TYPE.get(error.error_type, BY_KIND[error.kind])
