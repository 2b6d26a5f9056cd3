"""Merges long lists, each in its order, by way of one file: a portion of each is in memory."""

import heapq
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

PORTION_ROWS = 200
"""Of each list: a hundred lists are some ten megabytes."""

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Run:
    """Where a list's portions begin in the file."""

    offsets: Sequence[int]


def write_run(file: IO[bytes], rows: Iterable[Row]) -> Run:
    """Write a list at the file's end."""
    offsets: list[int] = []
    rest = iter(rows)
    while portion := list(islice(rest, PORTION_ROWS)):
        offsets.append(file.tell())
        pickle.dump(portion, file, pickle.HIGHEST_PROTOCOL)
    return Run(offsets)


def merge_runs(file: IO[bytes], runs: Iterable[Run], key: Callable[[Row], Any]) -> Iterator[Row]:
    """All lists' rows by their key, read while they are iterated; of equal ones the first list's.

    Nothing else moves in the file meanwhile.
    """
    return heapq.merge(*(_read(file, run) for run in runs), key=key)


def _read(file: IO[bytes], run: Run) -> Iterator[Row]:
    for offset in run.offsets:
        file.seek(offset)
        yield from pickle.load(file)  # noqa: S301  what we wrote, into a file without a name
