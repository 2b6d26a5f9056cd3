"""Makes reports as files, few at a time: each holds a connection for as long as it takes."""

import json
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, ParamSpec, TypeVar

from sqlalchemy.orm import Session

from src.common.exceptions import Unavailable
from src.common.postgres.lagging_reads import Answered, MayLag, may_lag
from src.common.replicas import Reader
from src.common.reports.catalogue import Wanted, read_report, write_report
from src.common.reports.formats import Format, readable
from src.common.reports.plots import Picture
from src.common.reports.snapshots import Tell, begin_report

P = ParamSpec("P")
T = TypeVar("T")

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


def read_in_place(
    reader: Reader, reading: MayLag[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> Answered[T]:
    """What a report's reading finds, in one of the places there are.

    Raises:
        ReportsBusy: too many are being made.
    """
    if not places.acquire(blocking=False):
        raise ReportsBusy
    try:
        return reader.read(reading, *args, **kwargs)
    finally:
        places.release()


@may_lag
def write_whole_report(
    session: Session,
    wanted: Wanted,
    format_: Format,
    file: IO[bytes],
    *,
    bom: bool = False,
    svg: Picture | None = None,
    tell: Tell | None = None,
) -> None:
    """Write a report as of one snapshot, into files that may hold what an earlier try wrote.

    Raises:
        DatabaseBusy, FiguresDiffer, Invalid: as of `write_report`.
    """
    _empty(file, None if svg is None else svg.file)
    begin_report(session)
    write_report(session, wanted, format_, file, bom=bom, svg=svg, tell=tell)


@may_lag
def write_whole_table(
    session: Session,
    wanted: Wanted,
    file: IO[bytes],
    *,
    svg: Picture | None = None,
    tell: Tell | None = None,
) -> None:
    """The same as JSON, an object a line, whose values are as people read them."""
    _empty(file, None if svg is None else svg.file)
    begin_report(session)
    figures = read_report(session, wanted, svg=svg, tell=tell)
    names = [column.name for column in figures.columns]
    for row in figures.rows:
        record = (readable(value, wanted.zone) for value in row)
        file.write(json.dumps(dict(zip(names, record, strict=True))).encode() + b"\n")


def _empty(*files: IO[bytes] | None) -> None:
    for each in files:
        if each is not None:
            each.seek(0)
            each.truncate()


def make_report(
    wanted: Wanted, format_: Format, *, bom: bool = False, reader: Reader | None = None
) -> Answered[IO[bytes]]:
    """The whole report, on disk where it is long: no snapshot stays open for a slow reader.

    Raises:
        DatabaseBusy, FiguresDiffer, Invalid: as of `write_report`.
        ReportsBusy: too many are being made.
    """
    file = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115  closed once sent
    try:
        made = read_in_place(reader or Reader(), write_whole_report, wanted, format_, file, bom=bom)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return Answered(file, made.read_from)


def chunks_of(file: IO[bytes]) -> Iterator[bytes]:
    """What a report's file has, piece by piece; it is closed after the last."""
    with file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
