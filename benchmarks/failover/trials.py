"""One event after the other under load, each compared with the books and printed as a line."""

from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg

from benchmarks.failover import report
from benchmarks.failover.comparison import compare
from benchmarks.failover.operations import Asked
from benchmarks.failover.processes import until
from benchmarks.failover.service import Service

ACKNOWLEDGED, ACKNOWLEDGED_SHORT = 2_000, 300
NOT_INSTALLED = 77
"""The exit code where a program is missing that no part of the project brings."""
_WARM_UP = 150
"""How many acknowledgements there are before anything happens, and how many more after it."""
_WHOLE_AGAIN_SECONDS = 300.0

Mend = Callable[[], None]


@dataclass
class Trials:
    """The events of one run, on one database."""

    service: Service
    open_books: Callable[[], psycopg.Connection]
    """A connection to whoever has the books now."""
    is_whole: Callable[[], bool]
    """Whether the next event may come."""
    acknowledged_min: int
    judges_gaps: bool = True
    failures: list[str] = field(default_factory=list[str])
    _before: list[Asked] = field(default_factory=list[Asked])

    def run(self, name: str, do: Callable[[], Mend], bound_seconds: float | None) -> None:
        """Let it happen under load, mend what it broke, compare, and print the line.

        Raises:
            HarnessFailed, BooksDisagree: it did not come so far, or the books do not add up.
        """
        until(self.is_whole, "everything to be in order")
        load = self.service.start_load()
        load.until_acknowledged(_WARM_UP)
        mend = do()
        load.until_acknowledged(load.acknowledged() + _WARM_UP)
        mend()
        load.until_acknowledged(self.acknowledged_min)
        asked = load.end()
        until(self.is_whole, "everything to be in order again", _WHOLE_AGAIN_SECONDS)
        self.service.settle_accepted()
        with self.open_books() as books:
            comparison = compare(asked, self._before, books)
        self.service.verify()
        self._before += asked
        result = report.Result(name, comparison, bound_seconds, self.acknowledged_min)
        print(report.line(result), flush=True)
        self.failures += [
            f"{name}: {each}" for each in result.failures(judges_gaps=self.judges_gaps)
        ]
