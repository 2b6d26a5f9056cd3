"""Prints what an event did, a line each, and says whether it was within its bounds."""

from dataclasses import dataclass

from benchmarks.failover.comparison import Comparison

_SHOWN = 5


@dataclass(frozen=True)
class Result:
    """An event that was run, and what came of it."""

    event: str
    comparison: Comparison
    bound_seconds: float | None
    acknowledged_min: int

    def failures(self, *, judges_gaps: bool) -> list[str]:
        """What is not as it has to be."""
        seen = self.comparison
        found: list[str] = []
        for what, keys in (
            ("lost", seen.lost),
            ("doubled", seen.doubled),
            ("refused", seen.refused),
        ):
            if keys:
                found.append(f"{len(keys)} {what}: {', '.join(keys[:_SHOWN])}")
        if seen.acknowledged < self.acknowledged_min:
            found.append(f"only {seen.acknowledged} acknowledged of {self.acknowledged_min}")
        if judges_gaps and self.bound_seconds and seen.gap_seconds > self.bound_seconds:
            found.append(
                f"a gap of {seen.gap_seconds:.1f} s ({seen.gap_of}), beyond {self.bound_seconds:g}"
            )
        return found


def head() -> str:
    """The first line of the table."""
    return f"{'event':<38}{'acknowledged':>13}{'lost':>6}{'doubled':>9}{'gap':>9}{'bound':>8}  ways"


def line(result: Result) -> str:
    """An event's line."""
    seen = result.comparison
    bound = "-" if result.bound_seconds is None else f"{result.bound_seconds:g} s"
    ways = " ".join(f"{way} {number}" for way, number in sorted(seen.by_way.items()))
    return (
        f"{result.event:<38}{seen.acknowledged:>13,}{len(seen.lost):>6}{len(seen.doubled):>9}"
        f"{seen.gap_seconds:>7.1f} s{bound:>8}  {ways}; gap of {seen.gap_of}"
    )
