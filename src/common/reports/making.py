"""Makes reports as files, few at a time: each holds a connection for as long as it takes."""

import tempfile
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import IO

from sqlalchemy.orm import Session

from src.common.database import SessionLocal
from src.common.exceptions import Unavailable
from src.common.reports.catalogue import Wanted, write_report
from src.common.reports.formats import Format
from src.common.reports.snapshots import begin_report

AT_ONCE = 2
"""Reports that a process makes at once."""
places = threading.BoundedSemaphore(AT_ONCE)
_IN_MEMORY_BYTES = 2**20
_CHUNK_BYTES = 2**16


class ReportsBusy(Unavailable):
    """As many reports are being made as may be."""

    retry_after_seconds = 10

    def __init__(self) -> None:
        super().__init__(
            f"{AT_ONCE} reports are being made already; ask again in some seconds.", "REPORTS_BUSY"
        )


@contextmanager
def reading() -> Generator[Session]:
    """A session for one report, on one snapshot, in one of the places there are.

    Raises:
        ReportsBusy: too many are being made.
    """
    if not places.acquire(blocking=False):
        raise ReportsBusy
    try:
        with SessionLocal.begin() as session:
            begin_report(session)
            yield session
    finally:
        places.release()


def make_report(wanted: Wanted, format_: Format, *, bom: bool = False) -> IO[bytes]:
    """The whole report, on disk where it is long: no snapshot stays open for a slow reader.

    Raises:
        DatabaseBusy, FiguresDiffer, Invalid: as of `write_report`.
        ReportsBusy: too many are being made.
    """
    file = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115  closed once sent
    try:
        with reading() as session:
            write_report(session, wanted, format_, file, bom=bom)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def chunks_of(file: IO[bytes]) -> Iterator[bytes]:
    """What a report's file has, piece by piece; it is closed after the last."""
    with file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
