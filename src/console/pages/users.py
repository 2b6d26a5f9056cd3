"""Finding users: by a part of who they are, by an id, and by how they stand."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from src.common.accounts.search import FoundUsers, UserFilter, search_users
from src.common.async_database import run_in_async_database_transaction
from src.common.exceptions import Invalid
from src.console.addresses import here_with
from src.console.audit import record
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import render

router = APIRouter()
SHOWN = 50


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

    def work(session: Session) -> FoundUsers:
        page = search_users(session, wanted, cursor=cursor, limit=SHOWN)
        if page.items:
            seen = [str(each.user.user_id) for each in page.items]
            record(session, person, "users.search", after={"found": seen})
        return page

    problem = None
    page: FoundUsers | None = None
    try:
        page = await run_in_async_database_transaction(work)
    except Invalid as error:
        problem = error
    return render(
        request,
        person,
        "users.html",
        problem=problem,
        wanted=wanted,
        q=q,
        page=page,
        address=here_with(request),
    )
