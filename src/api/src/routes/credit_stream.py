"""A user's balance as it changes: server-sent events for the front end."""

from collections.abc import AsyncGenerator, AsyncIterable
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.sse import EventSourceResponse

from src.api.src.balance_streams import BalanceStreams, Stream, watcher_of
from src.api.src.dependencies import BearerToken, Caller, claims_at_hand
from src.api.src.errors import AUTHENTICATED, EVERYWHERE, error_responses
from src.api.src.head_requests import ASKED_AS_HEAD
from src.api.src.known_parameters import KNOWN_PARAMETERS_ONLY
from src.api.src.routes.credits import ReadableUser
from src.api.src.schemas.balance_events import BalanceEvent
from src.common.async_database import read_from_async_database
from src.common.credits.balance_changes import read_current
from src.common.credits.domain import errors
from src.common.credits.domain.commands import AMOUNT_MAX
from src.common.routing import async_routed_to

router = APIRouter(
    prefix="/user/{user_id}/credits", tags=["credits"], dependencies=[KNOWN_PARAMETERS_ONLY]
)


async def _opened_stream(
    request: Request,
    response: Response,
    user_id: ReadableUser,
    caller: Caller,
    token: BearerToken,
    last_event_id: Annotated[
        int | None,
        Header(
            alias="Last-Event-ID",
            ge=0,
            le=AMOUNT_MAX,
            description="The `id` of the last event that was seen: the entries since then come "
            "with the first event.",
        ),
    ] = None,
) -> AsyncGenerator[Stream]:
    """A stream that is given back once its last byte is sent, or nobody reads it any more."""
    streams: BalanceStreams = request.app.state.balance_streams
    watcher = watcher_of(caller, token, await claims_at_hand(request), request.scope)
    response.headers["Cache-Control"] = "no-store"  # FastAPI says no-cache besides
    with streams.opened(user_id, watcher) as stream:
        after = {user_id: last_event_id}
        async with async_routed_to(user_id):
            current = await read_from_async_database(lambda session: read_current(session, after))
        if user_id not in current:
            raise errors.user_not_found()
        if request.scope.get(ASKED_AS_HEAD):
            stream.end()
        else:
            stream.begin(current[user_id], last_event_id)
        yield stream


@router.get(
    "/stream",
    summary="A user's balance as it changes",
    response_class=EventSourceResponse,
    responses={
        200: {"description": "Server-sent events `balance`, for as long as somebody reads"},
        **error_responses(*EVERYWHERE, *AUTHENTICATED, "USER_NOT_FOUND", "STREAMS_BUSY"),
    },
)
async def stream_balance(
    stream: Annotated[Stream, Depends(_opened_stream)],
) -> AsyncIterable[BalanceEvent]:
    """Server-sent events: the balance now, and again within some seconds of each change.

    An event's `id` is the `version`. A comment comes every 15 seconds. The stream ends when the
    token does, or the right to read; after `CREDITS_STREAM_MAX_SECONDS`; or with its server. Then
    connect again with `Last-Event-ID`. Of more than 100 entries since then, the newest come.
    """
    async for event in stream.events():
        yield event  # type: ignore[misc]  # with its id and name: FastAPI documents what it holds
