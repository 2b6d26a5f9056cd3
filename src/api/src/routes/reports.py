"""Figures of the whole ledger, for finance."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime

from src.api.src.dependencies import Caller
from src.api.src.errors import AUTHENTICATED, EVERYWHERE, error_responses
from src.api.src.known_parameters import KNOWN_PARAMETERS_ONLY
from src.api.src.lagging import Read, headers_of
from src.common.accounts.api_keys import Scope
from src.common.postgres.lagging_reads import Source
from src.common.replicas import Reader
from src.common.reports.catalogue import ReportName, Wanted
from src.common.reports.formats import MEDIA_TYPES, Format
from src.common.reports.making import chunks_of, make_report
from src.common.reports.periods import By
from src.common.reports.users import UserFilter
from src.common.time_zones import find_zone

router = APIRouter(prefix="/reports", tags=["reports"], dependencies=[KNOWN_PARAMETERS_ONLY])


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
    read: Read = Source.PRIMARY,
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
    made = await run_in_threadpool(
        partial(make_report, wanted, format_, bom=bom, reader=Reader(read))
    )
    return StreamingResponse(
        chunks_of(made.value),
        media_type=MEDIA_TYPES[format_],
        headers={
            "Content-Disposition": f'attachment; filename="{name}.{format_}"',
            "Cache-Control": "private, no-store",
            **headers_of(made.read_from),
        },
    )
