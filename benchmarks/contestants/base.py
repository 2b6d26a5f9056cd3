"""What every contestant is: it does operations under a load, and says what it did."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from benchmarks.figures import PerRepetition, percentile


class Spread(StrEnum):
    """Which users the operations fall on."""

    UNIFORM = "uniform"
    """Every user is as likely as the next: row locks almost never meet."""
    HOT = "hot"
    """One user takes every operation: all of them wait for one row lock."""


class Database(StrEnum):
    """The databases of a run, all on its one server."""

    LEDGER = "flashslides"
    """`alembic upgrade head`, every trigger, key and foreign key on."""
    DOCUMENT = "document"
    """The same migrations up to the one before the ledger: the document's schema."""
    CREDIT_LEDGER = "credit_ledger"
    GRINGOTTS = "gringotts"
    NOSTRO = "nostro"


@dataclass(frozen=True)
class Load:
    """What a contestant is asked to do once: closed-loop callers for some seconds."""

    spread: Spread
    user_count: int
    """How many users the database holds, numbered from 0."""
    callers: int
    seconds: float
    processes: int = 1
    """Client processes that share the callers; for HTTP, server processes."""
    flush_delay_us: int = 0
    """What the server waits before each flush of its log."""
    first_number: int = field(default=0, compare=False)
    """The first of the users the operations are spread over; each turn on a hot user takes another
    one."""

    @property
    def numbers_drawn(self) -> int:
        """How many users the operations are spread over."""
        return 1 if self.spread is Spread.HOT else self.user_count


@dataclass(frozen=True)
class Outcome:
    """What a contestant says it did; the books say whether it is true."""

    acknowledged: int
    """Every operation that was answered as done, those before the measured window too."""
    latencies_ms: Sequence[float]
    """One for each operation of the measured window."""
    elapsed_seconds: float
    """From the start of the measured window to the answer of its last operation."""
    client_cpu_seconds: float
    """User and system time of the client's processes in the window; of pgbench, from its start."""
    unwritten: int = 0
    """How many of the acknowledged write nothing: replays, and what an echo answers."""
    failures: Mapping[str, int] = field(default_factory=dict[str, int])
    """Operations that were refused (a lock not granted in time …), by their error type."""
    application_cpu_seconds: float = 0.0
    """The same of the application's processes, where the client only sends requests to them."""

    operations_in_clocks: int = 0
    """Operations the CPU times are of, where it is more than those of the measured window."""
    peak_mib: float = 0.0
    """The most memory the client had, where that is measured."""

    def figures(self, server_cpu_seconds: float, other_cores: float) -> PerRepetition:
        """Return the figures of this run, given what the rest of the machine did meanwhile."""
        count = len(self.latencies_ms)
        counted = self.operations_in_clocks or count
        return PerRepetition(
            operations_per_second=count / self.elapsed_seconds,
            p50_ms=percentile(self.latencies_ms, 0.50),
            p99_ms=percentile(self.latencies_ms, 0.99),
            client_cpu_us=self.client_cpu_seconds / counted * 1e6,
            application_cpu_us=self.application_cpu_seconds / counted * 1e6,
            server_cpu_us=server_cpu_seconds / counted * 1e6,
            other_cores=other_cores,
            peak_mib=self.peak_mib,
        )


class ContestantFailed(Exception):
    """A contestant ended without a usable result; the message says how."""


class Clocks(Protocol):
    """What the runner reads when the measured window opens and when it closes."""

    def start(self) -> None:
        """Open the window."""
        ...

    def stop(self) -> None:
        """Close it."""
        ...


class Contestant(Protocol):
    """One way to move credits. Every connection it opens is closed when `run` returns."""

    @property
    def name(self) -> str:
        """A short name, unique among the contestants of one run."""
        ...

    @property
    def database(self) -> Database:
        """Where it writes."""
        ...

    def run(self, load: Load, clocks: Clocks) -> Outcome:
        """Do what the load says.

        Raises:
            ContestantFailed: if it cannot.
        """
        ...


Say = Callable[[str], None]
