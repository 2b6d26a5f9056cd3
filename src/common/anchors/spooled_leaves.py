"""Leaves in a temporary file: written group after group, read in the order of user ids."""

import heapq
import os
import tempfile
from collections.abc import Generator, Iterator
from itertools import islice
from types import TracebackType
from typing import Self

from src.common.anchors.leaves import LEAF_OCTETS, split
from src.common.anchors.records import LEAVES_A_LINE

_PIECE_OCTETS = LEAVES_A_LINE * LEAF_OCTETS
_READ_AHEAD_OCTETS = 64 * LEAF_OCTETS
"""So much of each run is in memory while they are merged."""


class SpooledLeaves:
    """Leaves of any number of users; memory is bounded."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed by `__exit__`
        self._ends = [0]
        """Where runs end, each of which is in the order of user ids."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, leaves: bytes) -> None:
        """Put these at the end of the run that is being written."""
        self._file.write(leaves)

    def end_run(self) -> None:
        """What comes next begins anew in the order of user ids."""
        self._ends.append(self._file.tell())

    def sort(self) -> Generator[int]:
        """Merge the runs, of which there is one where groups have no schemas; yields often."""
        runs = [each for each in zip(self._ends, self._ends[1:], strict=False) if each[0] < each[1]]
        if len(runs) < 2:  # noqa: PLR2004  one is in order
            return
        self._file.flush()
        with self._file as spooled:
            self._file, done = tempfile.TemporaryFile(), 0  # noqa: SIM115  closed by `__exit__`
            leaves = heapq.merge(*(_run(spooled.fileno(), *each) for each in runs))
            while piece := list(islice(leaves, LEAVES_A_LINE)):
                self._file.write(b"".join(piece))
                done += len(piece)
                yield done
        self._ends = [0, self._file.tell()]

    def pieces(self) -> Iterator[bytes]:
        """All of them, a line of a record at a time."""
        self._file.seek(0)
        while piece := self._file.read(_PIECE_OCTETS):
            yield piece

    def count(self) -> int:
        """How many there are."""
        return self._file.seek(0, os.SEEK_END) // LEAF_OCTETS


def _run(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """A run's leaves, one by one: each begins with its user's id, so octets sort them."""
    while start < end:
        read = os.pread(descriptor, min(_READ_AHEAD_OCTETS, end - start), start)
        start += len(read)
        yield from split(read)
