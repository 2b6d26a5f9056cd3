"""Credits: what a user has and why, and every way to move them over HTTP (DESIGN §6)."""

import hashlib
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from pydantic import AwareDatetime, BaseModel

from src.api.src.dependencies import Caller, Ledger, LedgerOf
from src.api.src.errors import AUTHENTICATED, EVERYWHERE, error_responses
from src.api.src.principals import Principal
from src.api.src.schemas.credits import (
    AdjustIn,
    BalanceOut,
    CaptureIn,
    EntryPage,
    ExplanationOut,
    GrantIn,
    HoldIn,
    HoldOut,
    HoldPage,
    PreviewOut,
    ReleaseIn,
    RenewIn,
    ResultOut,
    SpendIn,
)
from src.common.accounts.api_keys import Scope
from src.common.async_database import run_in_async_database_transaction
from src.common.credits import queries
from src.common.credits.commands import (
    AMOUNT_MAX,
    Adjust,
    Capture,
    Command,
    Grant,
    OpenHold,
    Release,
    Renew,
    Spend,
)
from src.common.exceptions import BadRequest
from src.common.models.credit_lot import LotSource
from src.common.pagination import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX

router = APIRouter(prefix="/user/{user_id}/credits", tags=["credits"])

READS = (*EVERYWHERE, *AUTHENTICATED, "USER_NOT_FOUND")
WRITES = (*READS, "IDEMPOTENCY_KEY_REQUIRED", "IDEMPOTENCY_KEY_REUSED", "ENGINE_BUSY")
HOLD_WRITES = (*WRITES, "HOLD_NOT_FOUND", "HOLD_CLOSED", "HOLD_EXPIRED")
_DRY_RUN_KEY = "dry-run"
"""Commands have a key; a preview does not look at it."""

HoldSeq = Annotated[int, Path(ge=1, le=AMOUNT_MAX, description="The hold's number.")]
Cursor = Annotated[str | None, Query(max_length=200)]
Limit = Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX)]


async def _reader(user_id: uuid.UUID, caller: Caller) -> uuid.UUID:
    """The user whose credits the caller may read."""
    caller.require_own_or(Scope.CREDITS_READ, user_id)
    return user_id


ReadableUser = Annotated[uuid.UUID, Depends(_reader)]


@dataclass(frozen=True)
class Write:
    """A request to move credits by somebody who may; it has a key unless it is a dry run."""

    user_id: uuid.UUID
    caller: Principal
    key: str
    is_dry_run: bool
    ledger: Ledger

    async def do(self, kind: Callable[..., Command], **arguments: Any) -> Response:
        """Do it and say whether this was a replay; in a dry run say only what it would do.

        Written out here: the answer is not validated again.
        """
        command = kind(user_id=self.user_id, key=self.key, actor=self.caller.actor, **arguments)
        if self.is_dry_run:
            preview = await run_in_async_database_transaction(
                lambda session: queries.preview(session, command)
            )
            return _json(PreviewOut.model_validate(preview))
        result = await self.ledger.execute(command)
        headers = {"Idempotent-Replayed": "true"} if result.replayed else None
        return _json(ResultOut.model_validate(result), headers)


def _json(body: BaseModel, headers: dict[str, str] | None = None) -> Response:
    return Response(body.model_dump_json(), media_type="application/json", headers=headers)


def _write_with(scope: Scope) -> Callable[..., Awaitable[Write]]:
    """A dependency: the caller has `scope` and sends a key, or asks for a dry run."""

    async def write(
        user_id: uuid.UUID,
        caller: Caller,
        ledger: LedgerOf,
        idempotency_key: Annotated[
            str | None,
            Header(
                description="Yours, unique per user, 1 to 255 characters: the same request sent "
                "again with it is done once. Required unless `dry_run`."
            ),
        ] = None,
        *,
        dry_run: Annotated[
            bool, Query(description="Only say what would be done; takes no key.")
        ] = False,
    ) -> Write:
        caller.require(scope)
        key = _DRY_RUN_KEY if dry_run else idempotency_key
        if not key:
            raise BadRequest("Send the header Idempotency-Key", "IDEMPOTENCY_KEY_REQUIRED")
        return Write(user_id, caller, key, dry_run, ledger)

    return write


SpendWrite = Annotated[Write, Depends(_write_with(Scope.CREDITS_SPEND))]
GrantWrite = Annotated[Write, Depends(_write_with(Scope.CREDITS_GRANT))]


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
    user_id: ReadableUser,
    as_of: Annotated[
        AwareDatetime | None, Query(description="A past instant; left out, it is now.")
    ] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Balance, holds, debt and lots to the instant: what has expired does not count.

    The ETag is a digest of the answer: a balance changes with time, without an entry.
    """
    found = await run_in_async_database_transaction(
        lambda session: queries.balance(session, user_id, as_of=as_of)
    )
    body = BalanceOut.model_validate(found).model_dump_json().encode()
    etag = f'"{hashlib.sha256(body).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if _names(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


@router.get("/entries", summary="A user's journal", responses=error_responses(*READS))
async def list_entries(
    user_id: ReadableUser, cursor: Cursor = None, limit: Limit = PAGE_SIZE_DEFAULT
) -> EntryPage:
    """Every movement of credits, newest first, a page at a time."""
    page = await run_in_async_database_transaction(
        lambda session: queries.history(session, user_id, cursor=cursor, limit=limit)
    )
    return EntryPage.model_validate(page)


@router.get("/holds", summary="A user's holds", responses=error_responses(*READS))
async def list_holds(
    user_id: ReadableUser, cursor: Cursor = None, limit: Limit = PAGE_SIZE_DEFAULT
) -> HoldPage:
    """Holds of every status, newest first, a page at a time."""
    page = await run_in_async_database_transaction(
        lambda session: queries.holds(session, user_id, cursor=cursor, limit=limit)
    )
    return HoldPage.model_validate(page)


@router.get("/holds/{seq}", summary="One hold", responses=error_responses(*READS, "HOLD_NOT_FOUND"))
async def get_hold(user_id: ReadableUser, seq: HoldSeq) -> HoldOut:
    """The hold as it is now: past its expiry it is expired, booked or not."""
    found = await run_in_async_database_transaction(
        lambda session: queries.get_hold(session, user_id, seq)
    )
    return HoldOut.model_validate(found)


@router.get("/explain", summary="Why the balance is what it is", responses=error_responses(*READS))
async def explain(user_id: ReadableUser) -> ExplanationOut:
    """Lots, holds and debts with the entry behind each, and whether all sums agree."""
    found = await run_in_async_database_transaction(
        lambda session: queries.explain(session, user_id)
    )
    return ExplanationOut.model_validate(found)


@router.post(
    "/spend",
    summary="Use credits",
    responses=error_responses(*WRITES, "INSUFFICIENT_CREDITS"),
    response_model=PreviewOut | ResultOut,
)
async def spend(write: SpendWrite, body: SpendIn) -> Response:
    """Take credits from the user's lots, all or nothing."""
    return await write.do(Spend, **body.model_dump())


@router.post(
    "/grant",
    summary="Give credits",
    responses=error_responses(*WRITES, "BALANCE_LIMIT_EXCEEDED"),
    response_model=PreviewOut | ResultOut,
)
async def grant(write: GrantWrite, body: GrantIn) -> Response:
    """Make a new lot; what the user owes is paid from it first."""
    return await write.do(Grant, **body.model_dump() | {"source": LotSource(body.source)})


@router.post(
    "/adjust",
    summary="Correct a balance",
    responses=error_responses(*WRITES, "INSUFFICIENT_CREDITS", "BALANCE_LIMIT_EXCEEDED"),
    response_model=PreviewOut | ResultOut,
)
async def adjust(write: GrantWrite, body: AdjustIn) -> Response:
    """Up or down, never below 0, with the reason in the journal."""
    return await write.do(Adjust, **body.model_dump())


@router.post(
    "/holds",
    summary="Set credits aside",
    responses=error_responses(*WRITES, "INSUFFICIENT_CREDITS", "TOO_MANY_HOLDS"),
    response_model=PreviewOut | ResultOut,
)
async def open_hold(write: SpendWrite, body: HoldIn) -> Response:
    """Take credits out of the balance until they are captured, released or expire."""
    return await write.do(OpenHold, **body.model_dump())


@router.post(
    "/holds/{seq}/capture",
    summary="Keep credits of a hold",
    responses=error_responses(*HOLD_WRITES, "CAPTURE_EXCEEDS_HOLD", "INSUFFICIENT_CREDITS"),
    response_model=PreviewOut | ResultOut,
)
async def capture(write: SpendWrite, seq: HoldSeq, body: CaptureIn) -> Response:
    """Keep what was used; unless `final` is false the rest goes back."""
    return await write.do(Capture, hold_seq=seq, **body.model_dump())


@router.post(
    "/holds/{seq}/release",
    summary="Give a hold up",
    responses=error_responses(*HOLD_WRITES),
    response_model=PreviewOut | ResultOut,
)
async def release(write: SpendWrite, seq: HoldSeq, _body: ReleaseIn | None = None) -> Response:
    """What was not captured goes back to the lots it came from."""
    return await write.do(Release, hold_seq=seq)


@router.post(
    "/holds/{seq}/renew",
    summary="Let a hold expire later",
    responses=error_responses(*HOLD_WRITES),
    response_model=PreviewOut | ResultOut,
)
async def renew(write: SpendWrite, seq: HoldSeq, body: RenewIn) -> Response:
    """Counted from now; only while the hold is open."""
    return await write.do(Renew, hold_seq=seq, **body.model_dump())


def _names(if_none_match: str | None, etag: str) -> bool:
    """Whether the header holds this ETag (RFC 9110 §13.1.2: weak comparison, a list, or `*`)."""
    given = {each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")}
    return etag in given or "*" in given
