"""What every contestant is: it does credit updates under a load, and says what it did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from benchmarks.figures import PerRepetition, percentile

CREDITS = 7
"""Credits one operation adds: not 1, so that a sum of credits is never taken for a count."""
AMOUNT_PAID_CENTS = 5


class Spread(StrEnum):
    """Which users the operations fall on."""

    UNIFORM = "uniform"
    """Every user is as likely as the next: row locks almost never meet."""
    HOT = "hot"
    """One user takes every operation: all of them wait for one row lock."""


@dataclass(frozen=True)
class Load:
    """What a contestant is asked to do once: closed-loop clients for some seconds."""

    spread: Spread
    user_count: int
    """How many users the database holds, numbered from 0."""
    clients: int
    seconds: int
    first_number: int = field(default=0, compare=False)
    """The first of those the operations are spread over. Every turn on a hot user takes another
    one: who bought often has many lots, all of which every operation reads."""

    @property
    def numbers_drawn(self) -> int:
        """How many users the operations are spread over."""
        return 1 if self.spread is Spread.HOT else self.user_count


@dataclass(frozen=True)
class Outcome:
    """What a contestant says it did; the books say whether it is true."""

    acknowledged: int
    """Every operation whose COMMIT was answered, those before the measured window too."""
    latencies_ms: Sequence[float]
    """One for each operation of the measured window."""
    elapsed_seconds: float
    """From the start of the measured window to the answer of its last operation."""
    client_cpu_seconds: float
    """User and system time of the client's process over the whole run, connecting included."""
    failures: Mapping[str, int] = field(default_factory=dict[str, int])
    """Operations that were refused (a lock not granted in time …), by their error type."""

    def figures(self, server_cpu_seconds: float, other_cores: float) -> PerRepetition:
        """Return the figures of this run, given what the rest of the machine did meanwhile."""
        return PerRepetition(
            operations_per_second=len(self.latencies_ms) / self.elapsed_seconds,
            p50_ms=percentile(self.latencies_ms, 0.50),
            p99_ms=percentile(self.latencies_ms, 0.99),
            client_cpu_us=self.client_cpu_seconds / self.acknowledged * 1e6,
            server_cpu_us=server_cpu_seconds / self.acknowledged * 1e6,
            other_cores=other_cores,
        )


class ContestantFailed(Exception):
    """A contestant ended without a usable result; the message says how."""


class Contestant(Protocol):
    """One way to update credits. Every connection it opens is closed when `run` returns."""

    @property
    def name(self) -> str:
        """A short name, unique among the contestants of one run."""
        ...

    def run(self, load: Load) -> Outcome:
        """Do what the load says.

        Raises:
            ContestantFailed: if it cannot.
        """
        ...
