"""Failures of Stripe on request: rate limits, errors, answers that come too late."""

from dataclasses import dataclass, replace
from enum import StrEnum

from src.offline_stripe.errors import StripeError


class TroubleKind(StrEnum):
    """What goes wrong."""

    RATE_LIMIT = "rate_limit"
    """429, nothing done."""
    ERROR = "error"
    """500, nothing done."""
    SLOW = "slow"
    """Done, but the answer comes `delay_seconds` later; most clients will not wait so long."""


@dataclass(frozen=True)
class Trouble:
    """What happens to the next `times` requests of this method below this path."""

    kind: TroubleKind
    times: int = 1
    method: str | None = None
    path: str = "/v1/"
    delay_seconds: float = 0

    def error(self) -> StripeError | None:
        """The error to answer with, if that is what happens."""
        if self.kind is TroubleKind.RATE_LIMIT:
            return StripeError(
                "Request rate limit exceeded. Learn more about rate limits here "
                "https://stripe.com/docs/rate-limits.",
                status=429,
                code="rate_limit",
            )
        if self.kind is TroubleKind.ERROR:
            return StripeError("An unknown error occurred", status=500, kind="api_error")
        return None


class Troubles:
    """What is still to go wrong, first come first served."""

    def __init__(self) -> None:
        self._waiting: list[Trouble] = []

    def add(self, trouble: Trouble) -> None:
        """Let this happen as well."""
        self._waiting.append(trouble)

    def clear(self) -> None:
        """A good day again."""
        self._waiting.clear()

    def next(self, method: str, path: str) -> Trouble | None:
        """What happens to this request."""
        for number, trouble in enumerate(self._waiting):
            if trouble.method in (None, method) and path.startswith(trouble.path):
                left = trouble.times - 1
                self._waiting[number : number + 1] = [replace(trouble, times=left)] if left else []
                return trouble
        return None
