"""What follows from an attempt: delivered, tried again and when, given up. Pure.

The table is that of Standard Webhooks 1.0.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from http import HTTPStatus

DELAYS_SECONDS = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""How long after each failed attempt the next one follows."""
ATTEMPTS_MAX = len(DELAYS_SECONDS) + 1
"""After so many, some three days, a notice is dead: an operator looks, and replays it."""
JITTER = 0.1
"""By what share of itself a delay may be longer: those that failed together come apart."""
RETRY_AFTER_MAX_SECONDS = 3_600
"""The longest that an endpoint may ask to be left alone at a time."""
FAILURES_BEFORE_PAUSE = 3
"""One notice that its endpoint cannot take pauses no other; so many in a row do."""
PAUSE_MAX_SECONDS = 60


class Outcome(Enum):
    """What came of sending a notice."""

    DELIVERED = auto()
    REFUSED = auto()
    """The endpoint answered, and not that it has it."""
    OUT_OF_REACH = auto()
    """No answer, or one that says that the endpoint has too much to do."""
    GONE = auto()
    """The endpoint wants to be told nothing any more."""


_BUSY = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
_MAY_SAY_WHEN = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back, or why nothing did."""

    outcome: Outcome
    status: int | None = None
    """The HTTP status; None where there was none."""
    error: str | None = None
    """Why it was not delivered, in words of ours; None where it was."""
    retry_after_seconds: int | None = None
    """How long the endpoint asks to be left alone, within bounds."""


def answer_of(status: int, retry_after: str | None, now: dt.datetime) -> Answer:
    """What an HTTP status means."""
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Answer(outcome=Outcome.DELIVERED, status=status)
    error = f"HTTP_STATUS: the endpoint answered {status}"
    if status == HTTPStatus.GONE:
        return Answer(outcome=Outcome.GONE, status=status, error=error)
    asked = retry_after_seconds(retry_after, now) if status in _MAY_SAY_WHEN else None
    outcome = Outcome.OUT_OF_REACH if status in _BUSY else Outcome.REFUSED
    return Answer(outcome=outcome, status=status, error=error, retry_after_seconds=asked)


def retry_after_seconds(header: str | None, now: dt.datetime) -> int | None:
    """What a `Retry-After` asks for (RFC 9110 §10.2.3), 1 second to an hour; None for nothing."""
    if header is None:
        return None
    written = header.strip()
    if written.isascii() and written.isdigit():
        asked = int(written[:10])
    else:
        try:
            until = parsedate_to_datetime(written)
        except (ValueError, OverflowError):
            return None
        if until.tzinfo is None:
            until = until.replace(tzinfo=dt.UTC)
        asked = int((until - now).total_seconds())
    return min(max(asked, 1), RETRY_AFTER_MAX_SECONDS)


def next_delay_seconds(
    attempts: int, retry_after: int | None, random: Callable[[], float]
) -> float | None:
    """When the next attempt follows that many; None where none does."""
    if attempts >= ATTEMPTS_MAX:
        return None
    delay = DELAYS_SECONDS[max(attempts, 1) - 1] * (1 + JITTER * random())
    return max(delay, retry_after or 0)


def pause_seconds(failures: int, retry_after: int | None) -> float | None:
    """For how long nothing is sent to an endpoint out of reach so often in a row; None: go on."""
    if failures < FAILURES_BEFORE_PAUSE:
        return retry_after
    doubled = 2.0 ** min(failures - FAILURES_BEFORE_PAUSE, 10)
    return max(min(doubled, PAUSE_MAX_SECONDS), retry_after or 0)
