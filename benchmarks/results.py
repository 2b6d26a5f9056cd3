"""A run's measurements, found by what was measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.contestants.base import Load, Spread
from benchmarks.figures import MedianOf, PerRepetition, Summary, median_of, ratios, summarise
from benchmarks.runner import Measurement


@dataclass(frozen=True)
class Case:
    """One contestant under one load."""

    contestant: str
    spread: Spread
    callers: int
    processes: int = 1
    flush_delay_us: int = 0


def case_of(contestant: str, load: Load) -> Case:
    """Return the case a turn belongs to."""
    return Case(contestant, load.spread, load.callers, load.processes, load.flush_delay_us)


class Measured:
    """All measurements of a run, a list a case in the order of the repetitions."""

    def __init__(self, measurements: Sequence[Measurement]) -> None:
        self._cases: dict[Case, list[Measurement]] = {}
        for each in measurements:
            self._cases.setdefault(case_of(each.contestant, each.load), []).append(each)

    def cases(self) -> list[Case]:
        """Return every case that was measured, in the order they first ran."""
        return list(self._cases)

    def of(self, case: Case) -> list[PerRepetition] | None:
        """Return a case's figures, one a repetition; None where it was not measured."""
        found = self._cases.get(case)
        return [each.figures for each in found] if found else None

    def summary(self, case: Case) -> Summary:
        """Return the medians of a case that was measured."""
        return summarise([each.figures for each in self._cases[case]])

    def failures(self, case: Case) -> int:
        """Return how many operations were refused."""
        return sum(sum(each.failures.values()) for each in self._cases.get(case, ()))

    def ratio(
        self,
        ours: Case,
        reference: Case,
        figure: Callable[[PerRepetition], float] = lambda each: each.operations_per_second,
    ) -> MedianOf | None:
        """Return the median of the ratios within each repetition; None where one is missing."""
        left, right = self.of(ours), self.of(reference)
        if left is None or right is None:
            return None
        return median_of(ratios([*map(figure, left)], [*map(figure, right)]))

    def ratio_to_best(self, ours: Case, references: Sequence[Case]) -> MedianOf | None:
        """Return the same against whichever reference was fastest in that repetition."""
        left = self.of(ours)
        present = [found for each in references if (found := self.of(each)) is not None]
        if left is None or not present:
            return None
        best = [
            max(each.operations_per_second for each in row) for row in zip(*present, strict=True)
        ]
        return median_of(ratios([each.operations_per_second for each in left], best))
