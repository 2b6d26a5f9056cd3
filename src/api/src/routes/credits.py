"""What a user has and why: balance, journal, holds."""

import datetime as dt
import hashlib
import uuid
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from pydantic import AwareDatetime
from sqlalchemy.orm import Session

from src.api.src.dependencies import Caller, CallerOrOneself, Oneself
from src.api.src.errors import AUTHENTICATED, EVERYWHERE, error_responses
from src.api.src.known_parameters import KNOWN_PARAMETERS_ONLY
from src.api.src.lagging import READ_AFTER, ReaderOfUser, headers_of
from src.api.src.principals import Principal, find_user, refuse_inactive
from src.api.src.routes import Cursor, Limit, UserId
from src.api.src.schemas.credits import BalanceOut, ExplanationOut, HoldOut, HoldPage
from src.common.accounts.api_keys import Scope
from src.common.async_database import read_from_async_database
from src.common.credits import queries
from src.common.credits.domain import errors
from src.common.credits.domain.commands import AMOUNT_MAX
from src.common.credits.domain.views import Balance
from src.common.models.credit_hold import HoldStatus
from src.common.postgres.pagination import PAGE_SIZE_DEFAULT
from src.common.postgres.shared_statements import NotAnswered
from src.common.routing import async_routed_to

router = APIRouter(
    prefix="/user/{user_id}/credits", tags=["credits"], dependencies=[KNOWN_PARAMETERS_ONLY]
)

READS = (*EVERYWHERE, *AUTHENTICATED, "USER_NOT_FOUND")

HoldSeq = Annotated[int, Path(ge=1, le=AMOUNT_MAX, description="The hold's number.")]
EntrySeq = Annotated[int, Path(ge=1, le=AMOUNT_MAX, description="The entry's number.")]


async def readable_user(user_id: UserId, caller: Caller) -> uuid.UUID:
    """The user whose credits the caller may read.

    Raises:
        Forbidden: FORBIDDEN.
    """
    caller.require_own_or(Scope.CREDITS_READ, user_id)
    return user_id


ReadableUser = Annotated[uuid.UUID, Depends(readable_user)]


@router.get(
    "",
    summary="What a user has",
    responses={
        304: {"description": "The balance is still what the ETag in `If-None-Match` stands for"},
        **error_responses(*READS),
    },
    response_model=BalanceOut,
)
async def get_balance(
    user_id: UserId,
    caller: CallerOrOneself,
    as_of: Annotated[
        AwareDatetime | None,
        Query(description="A past instant; left out: now."),
    ] = None,
    if_none_match: Annotated[
        str | None, Header(description="An earlier answer's `ETag`: 304 where nothing has changed.")
    ] = None,
) -> Response:
    """Balance, held credits, debt and lots at this instant: what has expired does not count.

    The `ETag` has a digest of the answer, since a balance changes with time too, without an entry.
    Before it stands the `version`, so that it may be sent back as `X-Read-After`.
    """
    found = await _balance(user_id, caller, as_of)
    body = BalanceOut.model_validate(found).model_dump_json().encode()
    etag = f'"{found.version}-{hashlib.sha256(body).hexdigest()}"'
    headers = {
        "ETag": etag,
        "Cache-Control": "private, no-cache",
        READ_AFTER: str(found.version),
    }
    if _names(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


@router.get("/holds", summary="A user's holds", responses=error_responses(*READS))
async def list_holds(
    user_id: ReadableUser,
    status: Annotated[HoldStatus | None, Query(description="Only these; left out: all.")] = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_SIZE_DEFAULT,
) -> HoldPage:
    """Holds of every status or of one, newest first, a page at a time."""
    async with async_routed_to(user_id):
        page = await read_from_async_database(
            lambda session: queries.holds(
                session, user_id, status=status, cursor=cursor, limit=limit
            )
        )
    return HoldPage.model_validate(page)


@router.get("/holds/{seq}", summary="One hold", responses=error_responses(*READS, "HOLD_NOT_FOUND"))
async def get_hold(user_id: ReadableUser, seq: HoldSeq) -> HoldOut:
    """The hold as it is now. After its expiry it is `expired`, booked or not."""
    async with async_routed_to(user_id):
        found = await read_from_async_database(
            lambda session: queries.get_hold(session, user_id, seq)
        )
    return HoldOut.model_validate(found)


@router.get("/explain", summary="Why the balance is what it is", responses=error_responses(*READS))
async def explain(
    user_id: ReadableUser, reader: ReaderOfUser, response: Response
) -> ExplanationOut:
    """Lots, holds and debts, each with its entry, and whether all sums agree."""
    async with async_routed_to(user_id):
        found = await reader.read(queries.explain, user_id)
    response.headers.update(headers_of(found.read_from))
    return ExplanationOut.model_validate(found.value)


async def _balance(
    user_id: uuid.UUID, caller: Principal | Oneself, as_of: dt.datetime | None
) -> Balance:
    if isinstance(caller, Principal):
        caller.require_own_or(Scope.CREDITS_READ, user_id)
        async with async_routed_to(user_id):
            return await read_from_async_database(
                lambda session: queries.balance(session, user_id, as_of=as_of)
            )
    with suppress(NotAnswered):
        reading = await caller.readings.read(user_id)
        if reading is None:
            raise errors.user_not_found()
        refuse_inactive(is_active=reading.is_active)
        return reading.balance

    def work(session: Session) -> Balance:
        find_user(session, user_id)
        return queries.balance(session, user_id)

    async with async_routed_to(user_id):
        return await read_from_async_database(work)


def _names(if_none_match: str | None, etag: str) -> bool:
    """Whether the header holds this ETag (RFC 9110 §13.1.2: weak comparison, a list, or `*`)."""
    given = {each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")}
    return etag in given or "*" in given
