"""The forms of actions that move credits or money: shown, and shown again with what is wrong."""

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi.responses import HTMLResponse

from src.common.async_database import run_in_async_database_transaction
from src.common.exceptions import ErrorKind, ExceptionWithErrorType
from src.common.models.user import User
from src.console.audit import record
from src.console.forms import Form
from src.console.people import Person
from src.console.rendering import confirm, render
from src.http_statuses import STATUS_BY_KIND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import Request
    from sqlalchemy.orm import Session

_NOBODY_KNOWS = frozenset({ErrorKind.UNAVAILABLE, ErrorKind.BAD_GATEWAY})
"""Errors after which it may have been done."""


@dataclass(frozen=True)
class FormPage:
    """A form for one action."""

    title: str
    route: str
    """The page's, to which one comes back."""
    fields: tuple[str, ...]


async def show_form(
    request: "Request",
    person: Person,
    page: FormPage,
    user_id: uuid.UUID | None,
    *,
    target: str | None = None,
    sources: "Sequence[str]" = (),
    left: str | None = None,
    form: Form | None = None,
    problem: ExceptionWithErrorType | None = None,
) -> HTMLResponse:
    """The form; with `form` and `problem`, as it was filled in and why nothing was done.

    It names the user whose credits it is about, and so is in the audit trail. `left` is what there
    is of the money, in words, where it is about money.
    """
    email = await run_in_async_database_transaction(
        lambda session: see_user(session, person, user_id, page.title)
    )
    values = {name: "" if form is None else str(form.fields.get(name, "")) for name in page.fields}
    return render(
        request,
        person,
        "money_form.html",
        problem=problem,
        title=page.title,
        user_id=user_id,
        email=email,
        target=target,
        sources=sources,
        left=left,
        values=values,
        action=request.scope["path"],
    )


def see_user(
    session: "Session", person: Person, user_id: uuid.UUID | None, where: str
) -> str | None:
    """The user's address, and that `person` saw it; None where there is no such user."""
    user = None if user_id is None else session.get(User, user_id)
    if user is None:
        return None
    record(session, person, "users.see", user_id=user_id, target=where)
    return user.email


async def answer_problem(
    request: "Request",
    person: Person,
    form: Form,
    page: FormPage,
    user_id: uuid.UUID | None,
    error: ExceptionWithErrorType,
    *,
    target: str | None = None,
    sources: "Sequence[str]" = (),
    left: str | None = None,
) -> HTMLResponse:
    """The form with the error's sentence; where it may have been done all the same, with its key.

    So whoever goes on does not do it twice.
    """
    if not form.is_confirmed or error.kind not in _NOBODY_KNOWS:
        return await show_form(
            request,
            person,
            page,
            user_id,
            target=target,
            sources=sources,
            left=left,
            form=form,
            problem=error,
        )
    answer = confirm(
        request,
        person,
        form,
        heading=f"{page.title}: nobody knows yet whether it was done",
        facts={"Why": error.message, "About": target or str(user_id)},
        button="Go on",
        cancel=None,
        warning="Go on with this form: whatever became of the first try, it is done once.",
    )
    answer.status_code = STATUS_BY_KIND[error.kind]
    return answer
