"""Which database errors are worth another try, how often, and after how long.

Only the edge that owns the database transaction retries (decision 0003). It alone knows that
nothing of the failed attempt is left, and can run the whole of it again.
"""

from typing import TYPE_CHECKING

from tenacity import retry_if_exception, stop_after_attempt, wait_random_exponential

from src.common.postgres.errors import (
    DEADLOCK_DETECTED,
    SERIALIZATION_FAILURE,
    STALE_PLAN,
    RetryableDatabaseError,
)

if TYPE_CHECKING:
    from typing import Any

ATTEMPTS_MAX = 7

_ROLLED_BACK_BY_SERVER = frozenset({DEADLOCK_DETECTED, SERIALIZATION_FAILURE})
"""The server rolled all of it back and says that trying again may help."""


def is_worth_retrying(error: BaseException) -> bool:
    """Whether running the same database transaction again may succeed at once.

    A lost connection is not: its COMMIT may have arrived, and only the caller's idempotency key
    can tell.
    """
    return isinstance(error, RetryableDatabaseError) and (
        error.reason == STALE_PLAN or error.sqlstate in _ROLLED_BACK_BY_SERVER
    )


RETRY_POLICY: "dict[str, Any]" = {
    "retry": retry_if_exception(is_worth_retrying),
    "stop": stop_after_attempt(ATTEMPTS_MAX),
    "wait": wait_random_exponential(multiplier=0.1, max=1),
    "reraise": True,
}
"""Arguments of tenacity's Retrying and AsyncRetrying: exponential backoff with full jitter.

Measured with eight clients that update two rows in opposite order: after waits of up to 0.1 s,
0.2 s, 0.4 s … all succeed, and sooner than after a tenth of that, where one in five gave up.
"""
