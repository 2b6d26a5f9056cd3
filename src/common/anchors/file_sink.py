"""An append-only file of checkpoints: one record after the other, each synced to the disk.

Nothing in it is ever changed, so it may carry the file system's append-only attribute. What a crash
cut off stays, and the next record begins on a line of its own.
"""

import fcntl
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from src.common.anchors.records import (
    LINE_OCTETS_MAX,
    Record,
    checkpoint_of,
    leaves_in,
    lines_of,
    note_in,
    read_leaves,
)
from src.common.anchors.sinks import SinkTaken, SinkUnavailable

_BLOCK_OCTETS = 1 << 20
_BEGINS = b'{"checkpoint": "'


class FileSink:
    """A file on a disk, which need not be there before the first checkpoint."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        """`file:` and the path."""
        return f"file:{self._path}"

    def newest(self, known: int | None) -> str | None:  # noqa: ARG002  it is at the end
        """As `Sink.newest`."""
        with self._translated():
            try:
                with self._path.open("rb") as file:
                    return _newest(file)
            except FileNotFoundError:
                return None

    def append(self, note: str, leaves: Iterable[bytes]) -> None:
        """As `Sink.append`; others who append wait meanwhile."""
        checkpoint = checkpoint_of(note)
        number = checkpoint.number
        with self._translated(), self._locked() as file:
            if not _ends_a_line(file):
                file.write(b"\n")  # which may be all that a crash cut off
                file.flush()
            newest = _newest(file)
            if newest is None:
                follows = checkpoint.is_complete  # of an emptied file nothing can follow
            else:
                follows = checkpoint_of(newest).number == number - 1
            if not follows:
                raise SinkTaken(self.name, number)
            for line in lines_of(note, leaves):
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
            self._sync_folder()

    def records(self) -> Iterator[Record]:
        """As `Sink.records`; what a crash cut off is passed over."""
        with self._translated(), self._path.open("rb") as file:
            for place in list(_places(file, 0)):
                file.seek(place)
                note = note_in(file.readline()) or ""
                checkpoint = checkpoint_of(note)
                yield Record(note, checkpoint, read_leaves(_lines(file), checkpoint.leaves))

    @contextmanager
    def _locked(self) -> Generator[BinaryIO]:
        with self._path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _sync_folder(self) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise SinkUnavailable(self.name, os.strerror(error.errno or 0)) from None


def _newest(file: BinaryIO) -> str | None:
    """The note of the last whole record; looked for from the end."""
    end = file.seek(0, os.SEEK_END)
    while (begin := _last_begin(file, end)) is not None:
        for place in _places(file, begin):
            file.seek(place)
            return note_in(file.readline())
        end = begin
    return None


def _last_begin(file: BinaryIO, end: int) -> int | None:
    """Where the last line before `end` begins that looks like a note's."""
    while end > 0:
        start = max(0, end - _BLOCK_OCTETS)
        file.seek(start)
        block = file.read(end - start)
        found = block.rfind(b"\n" + _BEGINS)
        if found >= 0:
            return start + found + 1
        if start == 0:
            return 0 if block.startswith(_BEGINS) else None
        end = start + len(_BEGINS)  # it may lie across the two blocks
    return None


def _places(file: BinaryIO, start: int) -> Iterator[int]:
    """Where whole records begin, from `start` on. Whoever takes one may move the file."""
    place, begins, missing = start, 0, -1
    while True:
        file.seek(place)
        line = file.readline(LINE_OCTETS_MAX)
        if not line:
            return
        note = note_in(line)
        if note is not None:
            begins, missing = place, checkpoint_of(note).leaves
        elif missing > 0:
            missing -= leaves_in(line) or missing + 1
        place += len(line)
        if missing == 0:
            yield begins
            missing = -1


def _lines(file: BinaryIO) -> Iterator[bytes]:
    return iter(partial(file.readline, LINE_OCTETS_MAX), b"")


def _ends_a_line(file: BinaryIO) -> bool:
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
