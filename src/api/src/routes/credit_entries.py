"""A user's journal, by a route with a fast path for who asks for their own."""

import re
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic_core import to_json

from src.api.src.dependencies import Caller, claims_at_hand
from src.api.src.errors import error_responses
from src.api.src.fast_path import FastReadRoute
from src.api.src.known_parameters import KNOWN_PARAMETERS_ONLY
from src.api.src.lagging import ReaderOfUser, headers_of
from src.api.src.principals import find_user, refuse_inactive
from src.api.src.routes import API_PREFIX, Cursor, Limit, UserId
from src.api.src.routes.credits import READS, readable_user
from src.api.src.schemas.credits import EntryPage
from src.common.async_database import read_from_async_database
from src.common.async_replicas import AsyncReader
from src.common.credits import queries
from src.common.credits.domain import errors
from src.common.credits.domain.views import HistoryEntry
from src.common.credits.engine.readings import EntriesAsked, EntriesRead
from src.common.exceptions import Invalid
from src.common.postgres.lagging_reads import Answered
from src.common.postgres.pagination import (
    PAGE_SIZE_DEFAULT,
    PAGE_SIZE_MAX,
    Page,
    decode_number_cursor,
)
from src.common.postgres.shared_statements import AsksTogether, NotAnswered
from src.common.routing import async_routed_to

router = APIRouter(
    prefix=f"{API_PREFIX}/user/{{user_id}}/credits",
    tags=["credits"],
    dependencies=[KNOWN_PARAMETERS_ONLY],
    route_class=FastReadRoute,
)
"""Its routes are the application's own, see `FastReadRoute`."""

_PLAIN_PARAMETER = re.compile(r"(cursor|limit)=([1-9][0-9]{0,9})", re.ASCII)
"""How clients write it; FastAPI reads every other spelling."""


@dataclass(frozen=True)
class EntriesQuery:
    """A page of entries by somebody who may read it, as FastAPI found out."""

    user_id: uuid.UUID
    cursor: str | None
    limit: int
    reader: AsyncReader

    async def read(self) -> Answered[Page[HistoryEntry]]:
        """Read it by a session."""
        async with async_routed_to(self.user_id):
            return await self.reader.read(
                queries.history, self.user_id, cursor=self.cursor, limit=self.limit
            )


@dataclass(frozen=True)
class OwnEntriesQuery:
    """A page of one's own entries, by a genuine token; whether one may is read along."""

    user_id: uuid.UUID
    cursor: str | None
    limit: int
    readings: AsksTogether[EntriesAsked, EntriesRead]

    async def read(self) -> EntriesRead | Answered[Page[HistoryEntry]]:
        """Read it with all who ask now; by a session where that fails."""
        asked = EntriesAsked(self.user_id, decode_number_cursor(self.cursor), self.limit)
        with suppress(NotAnswered):
            found = await self.readings.read(asked)
            if found is None:
                raise errors.user_not_found()
            refuse_inactive(is_active=found.is_active)
            return found
        async with async_routed_to(self.user_id):
            await read_from_async_database(lambda session: find_user(session, self.user_id))
        return await EntriesQuery(self.user_id, self.cursor, self.limit, AsyncReader()).read()


class _Entries:
    """A dependency: which page is asked for, by somebody who may read it."""

    async def __call__(
        self,
        user_id: UserId,
        caller: Caller,
        reader: ReaderOfUser,
        cursor: Cursor = None,
        limit: Limit = PAGE_SIZE_DEFAULT,
    ) -> EntriesQuery | OwnEntriesQuery:
        return EntriesQuery(await readable_user(user_id, caller), cursor, limit, reader)

    async def at_hand(self, request: Request) -> OwnEntriesQuery | None:
        """The same for a user who asks for their own entries and plainly."""
        readings: AsksTogether[EntriesAsked, EntriesRead] | None = getattr(
            request.app.state, "page_readings", None
        )
        query = _plain(request.scope["query_string"])
        if readings is None or query is None:
            return None
        cursor, limit = query
        claims = await claims_at_hand(request)
        if claims is None:
            return None
        user_id = uuid.UUID(claims["sub"])
        if str(user_id) != request.path_params["user_id"]:
            return None
        return OwnEntriesQuery(user_id, cursor, limit, readings)


def _plain(query_string: bytes) -> tuple[str | None, int] | None:
    """The cursor and limit of a query that has no more than these, once each, and right."""
    parts = query_string.decode("latin-1").split("&") if query_string else []
    found = [_PLAIN_PARAMETER.fullmatch(part) for part in parts]
    given = {match[1]: match[2] for match in found if match is not None}
    cursor, limit = given.get("cursor"), int(given.get("limit", PAGE_SIZE_DEFAULT))
    try:
        decode_number_cursor(cursor)
    except Invalid:
        return None
    return (cursor, limit) if len(given) == len(parts) and limit <= PAGE_SIZE_MAX else None


@router.get(
    "/entries",
    summary="A user's journal",
    responses=error_responses(*READS),
    response_model=EntryPage,
)
async def list_entries(
    entries: Annotated[EntriesQuery | OwnEntriesQuery, Depends(_Entries())],
) -> Response:
    """Every movement of credits, newest first, a page at a time."""
    page = await entries.read()
    headers: dict[str, str] = {}
    if isinstance(page, EntriesRead):  # plain values, and named as the model has them
        body = {"items": page.items, "next_cursor": page.next_cursor}
        written = to_json(body, inf_nan_mode="null")  # as models write it
    else:
        written = EntryPage.model_validate(page.value).model_dump_json().encode()
        headers = headers_of(page.read_from)
    return Response(written, media_type="application/json", headers=headers)
