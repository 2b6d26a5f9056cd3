"""Every way to move credits over HTTP, by routes with a fast path (decision 0018)."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BaseModel, TypeAdapter

from src.api.src.dependencies import Caller, Ledger, SettingsOf, known_service
from src.api.src.errors import error_responses
from src.api.src.fast_path import FastPathRoute
from src.api.src.lagging import READ_AFTER
from src.api.src.persons import ByHand, ledger_for
from src.api.src.principals import Principal
from src.api.src.routes import API_PREFIX, UserId
from src.api.src.routes.credits import READS, EntrySeq, HoldSeq
from src.api.src.schemas.credit_reversals import ReversalOut, ReversalPreviewOut, ReverseIn
from src.api.src.schemas.credits import (
    AdjustIn,
    CaptureIn,
    GrantIn,
    HoldIn,
    PreviewOut,
    ReleaseIn,
    RenewIn,
    ResultOut,
    SpendIn,
)
from src.common.accounts.api_keys import Scope
from src.common.async_database import read_from_async_database
from src.common.credits import queries
from src.common.credits.domain.commands import (
    Adjust,
    Capture,
    Command,
    Grant,
    OpenHold,
    Release,
    Renew,
    Reverse,
    Spend,
)
from src.common.credits.requests import check_manual_limit
from src.common.exceptions import BadRequest, Invalid
from src.common.models.credit_lot import LotSource
from src.common.routing import async_routed_to

router = APIRouter(
    prefix=f"{API_PREFIX}/user/{{user_id}}/credits", tags=["credits"], route_class=FastPathRoute
)
"""Its routes are the application's own, see `FastPathRoute`."""

WRITES = (*READS, "IDEMPOTENCY_KEY_REQUIRED", "IDEMPOTENCY_KEY_REUSED", "ENGINE_BUSY")
HOLD_WRITES = (*WRITES, "HOLD_NOT_FOUND", "HOLD_CLOSED", "HOLD_EXPIRED")
REVERSING = (Scope.CREDITS_SPEND, Scope.CREDITS_GRANT)
"""Either may undo entries: the first alone only spends and holds of its own."""
_KEY_HEADER = "Idempotency-Key"
_DRY_RUN_KEY = "dry-run"
"""Commands have a key; a preview does not look at it."""
_USER_ID = TypeAdapter(uuid.UUID)


@dataclass(frozen=True)
class Write:
    """A request to move credits by somebody who may; it has a key unless it is a dry run."""

    user_id: uuid.UUID
    caller: Principal
    key: str
    is_dry_run: bool
    ledger: Ledger
    manual_limit: int
    """The most credits it may give."""

    async def do(self, kind: Callable[..., Command], **arguments: Any) -> Response:
        """Do it and say whether this was a replay; in a dry run say only what it would do.

        Written out here: the answer is not validated again.
        """
        command = self._command(kind, arguments)
        if self.is_dry_run:
            async with async_routed_to(self.user_id):
                preview = await read_from_async_database(
                    lambda session: queries.preview(session, command)
                )
            foreseen = ReversalPreviewOut if kind is Reverse else PreviewOut
            return _json(foreseen.model_validate(preview))
        result = await self.ledger.execute(command)
        headers = {READ_AFTER: str(result.seq)}
        if result.replayed:
            headers["Idempotent-Replayed"] = "true"
        answer = ReversalOut if kind is Reverse else ResultOut
        return _json(answer.model_validate(result), headers)

    async def give(self, kind: Callable[..., Command], amount: int, **arguments: Any) -> Response:
        """The same for what may give credits, and then no more than the operator allows."""
        check_manual_limit(amount, self.manual_limit)
        return await self.do(kind, amount=amount, **arguments)

    def _command(self, kind: Callable[..., Command], arguments: dict[str, Any]) -> Command:
        try:
            return kind(user_id=self.user_id, key=self.key, actor=self.caller.actor, **arguments)
        except Invalid as error:
            raise _in_words_of_http(error) from None


def _json(body: BaseModel, headers: dict[str, str] | None = None) -> Response:
    return Response(body.model_dump_json(), media_type="application/json", headers=headers)


def _in_words_of_http(error: Invalid) -> Invalid:
    """A command's `key` came as a header: its error names that."""
    if error.details.get("field") != "key":
        return error
    problem = error.message.removeprefix("key: ")
    return Invalid(f"{_KEY_HEADER}: {problem}", error.error_type, field=_KEY_HEADER)


class _WriteWith:
    """A dependency: the caller has one of `scopes` and sends a key, or asks for a dry run."""

    def __init__(self, *scopes: Scope) -> None:
        self._scopes = scopes

    async def __call__(
        self,
        user_id: UserId,
        caller: Caller,
        settings: SettingsOf,
        request: Request,
        idempotency_key: Annotated[
            str | None,
            Header(
                description="Your name for this request, unique per user, 1 to 255 characters. The "
                "same request sent again with it is done once. Not needed with `dry_run`."
            ),
        ] = None,
        *,
        dry_run: Annotated[bool, Query(description="Only answer what would be done.")] = False,
    ) -> Write:
        caller.require(*self._scopes)
        key = _DRY_RUN_KEY if dry_run else idempotency_key
        if not key:
            raise BadRequest(f"Send the header {_KEY_HEADER}", "IDEMPOTENCY_KEY_REQUIRED")
        allowed = ledger_for(caller, request.app.state)
        return Write(user_id, caller, key, dry_run, allowed, settings.credits_manual_limit)

    async def at_hand(self, request: Request) -> Write | None:
        """The same for a service that asked a moment ago, may write and sends a key."""
        caller = known_service(request)
        key = request.headers.get(_KEY_HEADER)
        if caller is None or caller.scopes.isdisjoint(self._scopes) or not key:
            return None
        if request.scope["query_string"]:  # perhaps a dry run
            return None
        user_id = _USER_ID.validate_python(request.path_params["user_id"])
        state = request.app.state
        limit: int = state.settings.credits_manual_limit
        ledger = ByHand.of(state)
        return Write(user_id, caller, key, is_dry_run=False, ledger=ledger, manual_limit=limit)


SpendWrite = Annotated[Write, Depends(_WriteWith(Scope.CREDITS_SPEND))]
GrantWrite = Annotated[Write, Depends(_WriteWith(Scope.CREDITS_GRANT))]
ReverseWrite = Annotated[Write, Depends(_WriteWith(*REVERSING))]


@router.post(
    "/spend",
    summary="Use credits",
    responses=error_responses(*WRITES, "INSUFFICIENT_CREDITS"),
    response_model=ResultOut | PreviewOut,
)
async def spend(write: SpendWrite, body: SpendIn) -> Response:
    """Take credits from the user's lots: all of `amount`, or nothing."""
    return await write.do(Spend, **body.model_dump())


@router.post(
    "/grant",
    summary="Give credits",
    responses=error_responses(*WRITES, "BALANCE_LIMIT_EXCEEDED", "CONSENT_NEEDED"),
    response_model=ResultOut | PreviewOut,
)
async def grant(write: GrantWrite, body: GrantIn) -> Response:
    """Make a new lot of credits. A debt of the user is paid from it first."""
    asked: dict[str, Any] = body.model_dump() | {"source": LotSource(body.source)}
    return await write.give(Grant, **asked)


@router.post(
    "/adjust",
    summary="Correct a balance",
    responses=error_responses(
        *WRITES, "INSUFFICIENT_CREDITS", "BALANCE_LIMIT_EXCEEDED", "CONSENT_NEEDED"
    ),
    response_model=ResultOut | PreviewOut,
)
async def adjust(write: GrantWrite, body: AdjustIn) -> Response:
    """Give or take credits by hand, never below 0. The journal keeps the reason."""
    return await write.give(Adjust, **body.model_dump())


@router.post(
    "/holds",
    summary="Set credits aside",
    responses=error_responses(*WRITES, "INSUFFICIENT_CREDITS", "TOO_MANY_HOLDS"),
    response_model=ResultOut | PreviewOut,
)
async def open_hold(write: SpendWrite, body: HoldIn) -> Response:
    """Take credits out of the balance until they are captured or released, or the hold expires."""
    return await write.do(OpenHold, **body.model_dump())


@router.post(
    "/holds/{seq}/capture",
    summary="Keep credits of a hold",
    responses=error_responses(*HOLD_WRITES, "CAPTURE_EXCEEDS_HOLD", "INSUFFICIENT_CREDITS"),
    response_model=ResultOut | PreviewOut,
)
async def capture(write: SpendWrite, seq: HoldSeq, body: CaptureIn) -> Response:
    """Keep the credits that were used. The rest goes back, unless `final` is false."""
    return await write.do(Capture, hold_seq=seq, **body.model_dump())


@router.post(
    "/holds/{seq}/release",
    summary="Give a hold up",
    responses=error_responses(*HOLD_WRITES, "CONSENT_NEEDED"),
    response_model=ResultOut | PreviewOut,
)
async def release(write: SpendWrite, seq: HoldSeq, _body: ReleaseIn | None = None) -> Response:
    """End the hold. What was not captured goes back to the lots it came from."""
    return await write.do(Release, hold_seq=seq)


@router.post(
    "/holds/{seq}/renew",
    summary="Let a hold expire later",
    responses=error_responses(*HOLD_WRITES),
    response_model=ResultOut | PreviewOut,
)
async def renew(write: SpendWrite, seq: HoldSeq, body: RenewIn) -> Response:
    """Let an open hold expire so many seconds from now."""
    return await write.do(Renew, hold_seq=seq, **body.model_dump())


@router.post(
    "/entries/{seq}/reverse",
    summary="Undo an entry",
    responses=error_responses(
        *(*WRITES, "ENTRY_NOT_FOUND", "ENTRY_NOT_REVERSIBLE", "REVERSAL_EXCEEDS_ENTRY"),
        *("INSUFFICIENT_CREDITS", "BALANCE_LIMIT_EXCEEDED", "CONSENT_NEEDED"),
    ),
    response_model=ReversalOut | ReversalPreviewOut,
)
async def reverse(write: ReverseWrite, seq: EntrySeq, body: ReverseIn) -> Response:
    """Undo all or some of an entry, in the lots that it moved.

    The scope `credits:spend` undoes spends and holds of the same service. The scope
    `credits:grant` undoes anybody's.
    """
    own_only = Scope.CREDITS_GRANT not in write.caller.scopes
    return await write.do(Reverse, seq=seq, own_only=own_only, **body.model_dump())
