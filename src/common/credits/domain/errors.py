"""The ledger's refusals, by `error_type`. A refusal writes nothing and leaves its key free."""

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
    """INSUFFICIENT_CREDITS: the user may spend less than was asked for.

    `details` has both, in whole credits: `required` and `available`.
    """

    kind = ErrorKind.PAYMENT_REQUIRED

    def __init__(self, required: int, available: int) -> None:
        super().__init__(
            f"{required} credits are needed, {available} are available",
            "INSUFFICIENT_CREDITS",
            required=required,
            available=available,
        )


def user_not_found() -> NotFound:
    """USER_NOT_FOUND: there is no such user."""
    return NotFound("User not found", "USER_NOT_FOUND")


def user_inactive() -> Forbidden:
    """USER_INACTIVE: a deactivated account neither spends nor opens holds."""
    return Forbidden("This account is deactivated", "USER_INACTIVE")


def hold_not_found() -> NotFound:
    """HOLD_NOT_FOUND: the user has no hold of this number."""
    return NotFound("Hold not found", "HOLD_NOT_FOUND")


def hold_closed(status: str) -> Conflict:
    """HOLD_CLOSED: the hold was captured or released; `details` has its `status`."""
    return Conflict(f"The hold is {status}", "HOLD_CLOSED", status=status)


def hold_expired() -> Conflict:
    """HOLD_EXPIRED: the hold has expired; its credits went back."""
    return Conflict("The hold has expired", "HOLD_EXPIRED")


def capture_exceeds_hold(uncaptured: int) -> Invalid:
    """CAPTURE_EXCEEDS_HOLD: less is left of the hold; `details` has `uncaptured`, in credits."""
    return Invalid(
        f"The hold has {uncaptured} credits left", "CAPTURE_EXCEEDS_HOLD", uncaptured=uncaptured
    )


def entry_not_found() -> NotFound:
    """ENTRY_NOT_FOUND: the user has no entry of this number."""
    return NotFound("Entry not found", "ENTRY_NOT_FOUND")


def entry_not_reversible(sentence: str, kind: str) -> Conflict:
    """ENTRY_NOT_REVERSIBLE: entries of its kind are not undone; the message says what is."""
    return Conflict(sentence, "ENTRY_NOT_REVERSIBLE", kind=kind)


def reversal_exceeds_entry(reversible: int) -> Invalid:
    """REVERSAL_EXCEEDS_ENTRY: less is left of the entry to undo: `reversible`, in `details`."""
    return Invalid(
        f"The entry has {reversible} credits left to reverse",
        "REVERSAL_EXCEEDS_ENTRY",
        reversible=reversible,
    )


def not_own_entry() -> Forbidden:
    """FORBIDDEN: the entry is no spend or hold of the one who asks to undo it."""
    return Forbidden("Only spends and holds of your own may be reversed", "FORBIDDEN")


def too_many_holds(limit: int) -> Conflict:
    """TOO_MANY_HOLDS: the user has as many open holds as anybody may; `details` has `limit`."""
    return Conflict(f"There are {limit} open holds already", "TOO_MANY_HOLDS", limit=limit)


def key_reused() -> Conflict:
    """IDEMPOTENCY_KEY_REUSED: the key belongs to another request of this user."""
    return Conflict("This idempotency key was used for another request", "IDEMPOTENCY_KEY_REUSED")


def request_in_progress() -> InProgress:
    """REQUEST_IN_PROGRESS: another try of the same request is under way."""
    return InProgress("This request is under way already; ask again", "REQUEST_IN_PROGRESS")


def already_charged() -> Conflict:
    """ALREADY_CHARGED: the request was done and charged, and its answer is no longer kept."""
    return Conflict("This request was done and charged already", "ALREADY_CHARGED")


def balance_limit_exceeded(limit: int) -> Invalid:
    """BALANCE_LIMIT_EXCEEDED: balance and open holds together would exceed `limit` credits."""
    return Invalid(
        f"Balance and held credits together would exceed {limit}",
        "BALANCE_LIMIT_EXCEEDED",
        limit=limit,
    )


def must_expire_later() -> Invalid:
    """VALIDATION_ERROR: a lot's expiry must lie in the future."""
    return Invalid("expires_at: lies in the past", "VALIDATION_ERROR", field="expires_at")


def balance_change_ambiguous(sentence: str) -> Conflict:
    """BALANCE_CHANGE_AMBIGUOUS: nobody can tell what a changed `credits_balance` means.

    The message says what to do.
    """
    return Conflict(sentence, "BALANCE_CHANGE_AMBIGUOUS")


def database_transaction_required() -> Invalid:
    """DATABASE_TRANSACTION_REQUIRED: the session commits each statement by itself (AUTOCOMMIT)."""
    return Invalid(
        "Credits change inside a database transaction, and this session's connection is in "
        "AUTOCOMMIT: take a session without that isolation level",
        "DATABASE_TRANSACTION_REQUIRED",
    )
