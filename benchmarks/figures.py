"""The arithmetic of the figures: pure functions, no clock, no database.

A ratio is taken within one repetition, where both contestants ran within seconds of each other, and
only then summarised: a machine that is slow for a while slows both sides of every ratio.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PerRepetition:
    """What one contestant reached in one repetition of one load."""

    operations_per_second: float
    p50_ms: float
    p99_ms: float
    client_cpu_us: float
    """CPU time of the client for one operation."""
    application_cpu_us: float
    """The same of the application that a client only sends requests to; 0 where there is none."""
    server_cpu_us: float
    """CPU time of PostgreSQL's processes for one operation."""
    other_cores: float
    """How many cores everything else on the machine kept busy meanwhile."""
    peak_mib: float = 0
    """The most memory the client had, in MiB; 0 where it is not measured."""


@dataclass(frozen=True)
class MedianOf:
    """A median, and the least and the greatest of what it stands for."""

    median: float
    least: float
    greatest: float


@dataclass(frozen=True)
class Summary:
    """One contestant under one load, over all repetitions."""

    operations_per_second: MedianOf
    p50_ms: float
    p99_ms: float
    client_cpu_us: float
    application_cpu_us: float
    server_cpu_us: float
    other_cores: float


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of all values do not exceed.

    Raises:
        ValueError: if there are no values, or `share` is not in (0, 1].
    """
    if not values or not 0 < share <= 1:
        raise ValueError("A percentile needs values, and a share above 0 and up to 1.")
    return sorted(values)[math.ceil(share * len(values)) - 1]


def median_of(values: Sequence[float]) -> MedianOf:
    """Return median, least and greatest.

    Raises:
        ValueError: if there are no values.
    """
    if not values:
        raise ValueError("A median needs values.")
    return MedianOf(statistics.median(values), min(values), max(values))


def ratios(ours: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Return each value divided by the reference's of the same repetition.

    Raises:
        ValueError: if they do not have the same repetitions.
    """
    return [value / against for value, against in zip(ours, reference, strict=True)]


def summarise(ours: Sequence[PerRepetition]) -> Summary:
    """Return the medians over all repetitions."""
    return Summary(
        operations_per_second=median_of([one.operations_per_second for one in ours]),
        p50_ms=statistics.median(one.p50_ms for one in ours),
        p99_ms=statistics.median(one.p99_ms for one in ours),
        client_cpu_us=statistics.median(one.client_cpu_us for one in ours),
        application_cpu_us=statistics.median(one.application_cpu_us for one in ours),
        server_cpu_us=statistics.median(one.server_cpu_us for one in ours),
        other_cores=statistics.median(one.other_cores for one in ours),
    )
