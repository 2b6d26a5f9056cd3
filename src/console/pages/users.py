"""Finding users: by a part of who they are, by an id, and by how they stand."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from src.common.accounts.search import FoundUsers, UserFilter, merge_found, search_users
from src.common.async_database import run_in_async_database_transaction
from src.common.async_replicas import AsyncReader
from src.common.exceptions import Invalid
from src.console.addresses import here_with
from src.console.audit import record
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import render
from src.console.service import settings_of, source_of_lists
from src.console.whose import read_everybodys

if TYPE_CHECKING:
    from src.common.postgres.lagging_reads import Answered

router = APIRouter()
SHOWN = 50
_merge = partial(merge_found, limit=SHOWN)


@router.get("/users", name="console_users")
async def show_users(
    request: Request,
    person: Annotated[Person, require(Permission.USERS_SEE)],
    *,
    q: str = "",
    owing: bool = False,
    holding: bool = False,
    inactive: bool = False,
    never_bought: bool = False,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """One page of the users who are asked for, the newest first."""
    wanted = UserFilter(
        text=q.strip() or None,
        with_debt=owing,
        with_open_holds=holding,
        inactive=inactive,
        never_bought=never_bought,
    )

    reader = AsyncReader(source_of_lists(settings_of(request)))
    problem = None
    found: Answered[FoundUsers] | None = None
    try:
        found = await read_everybodys(
            reader, search_users, wanted, merge=_merge, cursor=cursor, limit=SHOWN
        )
    except Invalid as error:
        problem = error
    if found is not None and found.value.items:
        # Before anybody is shown; what a replica knows, only the primary can take note of.
        seen = {"found": [str(each.user.user_id) for each in found.value.items]}
        await run_in_async_database_transaction(
            lambda session: record(session, person, "users.search", after=seen)
        )
    return render(
        request,
        person,
        "users.html",
        problem=problem,
        wanted=wanted,
        q=q,
        page=None if found is None else found.value,
        read_from=None if found is None else found.read_from,
        address=here_with(request),
    )
