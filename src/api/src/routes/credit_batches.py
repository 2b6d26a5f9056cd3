"""Many credit operations in one request, for back-office and metering jobs."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from src.api.src.dependencies import Caller, Ledger, SettingsOf
from src.api.src.errors import AUTHENTICATED, EVERYWHERE, error_responses
from src.api.src.persons import ByHand, ledger_for
from src.api.src.principals import Principal
from src.api.src.schemas.credit_batches import (
    BatchIn,
    BatchOut,
    GrantItem,
    Item,
    ItemOut,
    SpendItem,
)
from src.api.src.schemas.credit_reversals import ReversalOut
from src.api.src.schemas.credits import ResultOut
from src.common.accounts.api_keys import Scope
from src.common.credits.domain.commands import Command, Grant, Reverse, Spend
from src.common.credits.requests import check_manual_limit
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.credit_lot import LotSource
from src.http_statuses import STATUS_BY_KIND

router = APIRouter(prefix="/credits", tags=["credits"])

_OUR_NAMES = {"operation", "idempotency_key"}
_SCOPES = (Scope.CREDITS_SPEND, Scope.CREDITS_GRANT)


async def _batch_caller(caller: Caller) -> Principal:
    """Whoever may do some of what a batch can hold; decided before its items are looked at."""
    caller.require(*_SCOPES)
    return caller


BatchCaller = Annotated[Principal, Depends(_batch_caller)]


@router.post(
    "/batch",
    summary="Use and give credits of many users at once",
    responses=error_responses(*EVERYWHERE, *AUTHENTICATED, "BAD_REQUEST"),
)
async def batch(
    body: BatchIn, caller: BatchCaller, settings: SettingsOf, request: Request
) -> BatchOut:
    """Do up to 1,000 spends, grants and reversals, each with its own key and its own outcome.

    The answer is 200 whatever becomes of the items. Each item has the status that the endpoint for
    it alone would answer. A refused item changes nothing for the others. The items of one user are
    done in their order. The same items with the same keys get the same answers again.
    """
    limit = settings.credits_manual_limit
    wanted = [_wanted(item, caller, limit) for item in body.items]
    ledger = ledger_for(caller, request.app.state)
    if not isinstance(ledger, ByHand):  # no engine keeps their order
        return BatchOut(results=[await _do(each, ledger) for each in wanted])
    commands = [each for each in wanted if not isinstance(each, ItemOut)]
    looked_up = await ledger.looked_up(commands)
    return BatchOut(results=list(await asyncio.gather(*(_do(each, looked_up) for each in wanted))))


def _wanted(item: Item, caller: Principal, manual_limit: int) -> Command | ItemOut:
    """The command an item asks for, or why it is refused at once."""
    try:
        return _command(item, caller, manual_limit)
    except ExceptionWithErrorType as error:
        return _refused(error)


async def _do(wanted: Command | ItemOut, ledger: Ledger) -> ItemOut:
    if isinstance(wanted, ItemOut):
        return wanted
    try:
        result = await ledger.execute(wanted)
    except ExceptionWithErrorType as error:
        return _refused(error)
    answer = ReversalOut if type(wanted) is Reverse else ResultOut
    return ItemOut(status=200, replayed=result.replayed, result=answer.model_validate(result))


def _refused(error: ExceptionWithErrorType) -> ItemOut:
    status = STATUS_BY_KIND[error.kind]
    return ItemOut.refused(status, error.error_type, error.message, **error.details)


def _command(item: Item, caller: Principal, manual_limit: int) -> Command:
    """The command an item asks for.

    Raises:
        Forbidden: FORBIDDEN, the caller lacks its scope.
        Invalid: VALIDATION_ERROR.
    """
    asked: dict[str, Any] = item.model_dump(exclude=_OUR_NAMES)
    asked |= {"key": item.idempotency_key, "actor": caller.actor}
    if isinstance(item, SpendItem):
        caller.require(Scope.CREDITS_SPEND)
        return Spend(**asked)
    if isinstance(item, GrantItem):
        caller.require(Scope.CREDITS_GRANT)
        check_manual_limit(item.amount, manual_limit)
        asked["source"] = LotSource(item.source)
        return Grant(**asked)
    return Reverse(**asked, own_only=Scope.CREDITS_GRANT not in caller.scopes)
