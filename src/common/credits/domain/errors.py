"""Why the ledger refuses; a refusal writes nothing and leaves its key free."""

from src.common.exceptions import (
    Conflict,
    ErrorKind,
    ExceptionWithErrorType,
    Forbidden,
    InProgress,
    Invalid,
    NotFound,
)


class InsufficientCredits(ExceptionWithErrorType):
    """The effective balance is smaller than what was asked for."""

    kind = ErrorKind.PAYMENT_REQUIRED

    def __init__(self, required: int, available: int) -> None:
        super().__init__(
            f"{required} credits are needed, {available} are available",
            "INSUFFICIENT_CREDITS",
            required=required,
            available=available,
        )


def user_not_found() -> NotFound:
    """No such user."""
    return NotFound("User not found", "USER_NOT_FOUND")


def user_inactive() -> Forbidden:
    """A deactivated account neither spends nor opens holds."""
    return Forbidden("This account is deactivated", "USER_INACTIVE")


def hold_not_found() -> NotFound:
    """The user has no hold of this number."""
    return NotFound("Hold not found", "HOLD_NOT_FOUND")


def hold_closed(status: str) -> Conflict:
    """The hold was captured or released."""
    return Conflict(f"The hold is {status}", "HOLD_CLOSED", status=status)


def hold_expired() -> Conflict:
    """The hold has expired; its credits went back."""
    return Conflict("The hold has expired", "HOLD_EXPIRED")


def capture_exceeds_hold(uncaptured: int) -> Invalid:
    """More was asked for than is left of the hold."""
    return Invalid(
        f"The hold has {uncaptured} credits left", "CAPTURE_EXCEEDS_HOLD", uncaptured=uncaptured
    )


def too_many_holds(limit: int) -> Conflict:
    """The user has as many open holds as anybody may."""
    return Conflict(f"There are {limit} open holds already", "TOO_MANY_HOLDS", limit=limit)


def key_reused() -> Conflict:
    """The key belongs to another request; nothing was done."""
    return Conflict("This idempotency key was used for another request", "IDEMPOTENCY_KEY_REUSED")


def request_in_progress() -> InProgress:
    """Another try of the same request is under way; it is not done a second time."""
    return InProgress("This request is under way already; ask again", "REQUEST_IN_PROGRESS")


def already_charged() -> Conflict:
    """The request was done and paid for, and what it was answered is not there to be repeated."""
    return Conflict("This request was done and charged already", "ALREADY_CHARGED")


def balance_limit_exceeded(limit: int) -> Invalid:
    """The balance, with what is held, would not fit its column."""
    return Invalid(
        f"Balance and held credits together would exceed {limit}",
        "BALANCE_LIMIT_EXCEEDED",
        limit=limit,
    )


def must_expire_later() -> Invalid:
    """A lot's expiry must lie in the future."""
    return Invalid("expires_at: lies in the past", "VALIDATION_ERROR", field="expires_at")


def balance_change_ambiguous(sentence: str) -> Conflict:
    """Nobody can tell what a changed `credits_balance` means; the sentence says what to do."""
    return Conflict(sentence, "BALANCE_CHANGE_AMBIGUOUS")


def database_transaction_required() -> Invalid:
    """The session commits each statement by itself; nothing was done."""
    return Invalid(
        "Credits change inside a database transaction, and this session's connection is in "
        "AUTOCOMMIT: take a session without that isolation level",
        "DATABASE_TRANSACTION_REQUIRED",
    )
