"""Figures of the whole ledger, for finance."""

import tempfile
import threading
from collections.abc import Iterator
from typing import IO, Annotated

from fastapi import APIRouter, Depends, Path, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime

from src.api.src.dependencies import Caller
from src.api.src.errors import AUTHENTICATED, EVERYWHERE, error_responses
from src.common.accounts.api_keys import Scope
from src.common.database import SessionLocal
from src.common.exceptions import Unavailable
from src.common.reports.catalogue import ReportName, Wanted, write_report
from src.common.reports.formats import MEDIA_TYPES, Format
from src.common.reports.periods import By
from src.common.reports.snapshots import begin_report
from src.common.reports.users import UserFilter
from src.common.time_zones import find_zone

router = APIRouter(prefix="/reports", tags=["reports"])

_IN_MEMORY_BYTES = 2**20
_CHUNK_BYTES = 2**16
AT_ONCE = 2
"""Reports that a process makes at once: each holds a connection for as long as it takes."""
places = threading.BoundedSemaphore(AT_ONCE)


class ReportsBusy(Unavailable):
    """As many reports are being made as may be."""

    retry_after_seconds = 10

    def __init__(self) -> None:
        super().__init__(
            f"{AT_ONCE} reports are being made already; ask again in some seconds.", "REPORTS_BUSY"
        )


async def may_read_reports(caller: Caller) -> None:
    """Raise unless the caller may.

    Raises:
        Forbidden: FORBIDDEN.
    """
    caller.require(Scope.REPORTS_READ)


@router.get(
    "/{name}",
    summary="A report",
    dependencies=[Depends(may_read_reports)],
    responses={
        200: {
            "description": "The report, in the format asked for",
            "content": {media_type: {} for media_type in MEDIA_TYPES.values()},
        },
        **error_responses(*EVERYWHERE, *AUTHENTICATED, "FIGURES_DIFFER", "REPORTS_BUSY"),
    },
    response_class=StreamingResponse,
)
async def get_report(  # noqa: PLR0913, PLR0917  its query
    name: Annotated[ReportName, Path(description="Which report.")],
    since: Annotated[
        AwareDatetime | None,
        Query(alias="from", description="After which instant; left out: since the month began."),
    ] = None,
    until: Annotated[
        AwareDatetime | None,
        Query(alias="to", description="Up to which instant, or as of it; left out: now."),
    ] = None,
    by: Annotated[By | None, Query(description="How long a period is; left out: one.")] = None,
    time_zone: Annotated[
        str, Query(max_length=64, description="Where days begin, such as Europe/Berlin.")
    ] = "UTC",
    format_: Annotated[
        Format, Query(alias="format", description="What the answer is written in.")
    ] = Format.JSON,
    bom: Annotated[  # noqa: FBT002  FastAPI names it
        bool, Query(description="For CSV: begin with the mark that tells Excel it is UTF-8.")
    ] = False,
    test_money: Annotated[  # noqa: FBT002
        bool,
        Query(
            description="Of `liability`, `revenue` and `journal`: value credits in what was paid "
            "in Stripe's test mode, not in real money."
        ),
    ] = False,
    with_balance: Annotated[  # noqa: FBT002
        bool, Query(description="Of `users`: only who has credits.")
    ] = False,
    with_debt: Annotated[bool, Query(description="Of `users`: only who owes.")] = False,  # noqa: FBT002
    idle_since: Annotated[
        AwareDatetime | None,
        Query(description="Of `users`: only who has done nothing since this instant."),
    ] = None,
) -> StreamingResponse:
    """Figures of all users' credits and payments, as of one snapshot of the database.

    They tie, which is checked before anything is sent. `journal` is for `format=beancount` or
    `format=hledger`; the others are for `json`, `csv` and `xlsx`.
    """
    users = UserFilter(with_balance=with_balance, with_debt=with_debt, idle_since=idle_since)
    wanted = Wanted(
        name=name,
        since=since,
        until=until,
        by=by,
        zone=find_zone("time_zone", time_zone),
        test_money=test_money,
        users=None if users == UserFilter() else users,
    )
    file = await run_in_threadpool(_written, wanted, format_, bom)
    return StreamingResponse(
        _sent(file),
        media_type=MEDIA_TYPES[format_],
        headers={
            "Content-Disposition": f'attachment; filename="{name}.{format_}"',
            "Cache-Control": "private, no-store",
        },
    )


def _written(wanted: Wanted, format_: Format, bom: bool) -> IO[bytes]:  # noqa: FBT001  private
    """The whole report, on disk where it is long: no snapshot stays open for a slow reader.

    Raises:
        ReportsBusy: too many are being made.
    """
    if not places.acquire(blocking=False):
        raise ReportsBusy
    try:
        return _spooled(wanted, format_, bom)
    finally:
        places.release()


def _spooled(wanted: Wanted, format_: Format, bom: bool) -> IO[bytes]:  # noqa: FBT001  private
    file = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115  closed once sent
    try:
        with SessionLocal.begin() as session:
            begin_report(session)
            write_report(session, wanted, format_, file, bom=bom)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def _sent(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
