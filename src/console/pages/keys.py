"""API keys of other services: made, shown once, revoked."""

import datetime as dt
import uuid
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from src.common.accounts.api_keys import (
    IssuedKey,
    Scope,
    create_api_key,
    list_api_keys,
    revoke_api_key,
)
from src.common.async_database import run_in_async_database_transaction
from src.common.exceptions import ExceptionWithErrorType, Invalid
from src.console.audit import is_recorded, record
from src.console.forms import Form, posted
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import confirm, done, render

router = APIRouter(prefix="/keys")

DAYS_MAX = 3_650


@router.get("", name="console_keys")
async def show_keys(
    request: Request, person: Annotated[Person, require(Permission.KEYS_SEE)]
) -> Response:
    """All keys, newest first."""
    return await _page(request, person)


@router.post("", name="console_key_create")
async def create_key(
    request: Request,
    person: Annotated[Person, require(Permission.KEYS_CHANGE)],
    form: Annotated[Form, posted()],
) -> Response:
    """Make a key; this one answer shows it."""
    try:
        days = form.integer("days", least=1, most=DAYS_MAX) if form.text("days") else None
        service, scopes = form.required("service"), form.texts("scopes")
        reason = form.reason()

        def work(session: Session) -> IssuedKey | None:
            if is_recorded(session, form.key):
                return None
            lasts = None if days is None else dt.timedelta(days=days)
            expires_at = None if lasts is None else dt.datetime.now(dt.UTC) + lasts
            made = create_api_key(
                session, service_name=service, scopes=scopes, expires_at=expires_at
            )
            record(
                session,
                person,
                "api_keys.create",
                target=str(made.record.key_id),
                reason=reason,
                after={"scopes": list(made.record.scopes), "days": days},
                key=form.key,
            )
            return made

        made = await run_in_async_database_transaction(work)
    except Invalid as error:
        return await _page(request, person, problem=error, form=form)
    if made is None:
        return done(
            request,
            "This form made a key before, which was shown then. If nobody has it, revoke it and "
            "make another.",
            "console_keys",
        )
    return render(request, person, "key_made.html", key=made.key, record=made.record)


@router.post("/{key_id}/revoke", name="console_key_revoke")
async def revoke_key(
    request: Request,
    person: Annotated[Person, require(Permission.KEYS_CHANGE)],
    form: Annotated[Form, posted()],
    key_id: uuid.UUID,
) -> Response:
    """End a key, once what that means was shown."""
    if not form.is_confirmed:
        return confirm(
            request,
            person,
            form,
            heading="Revoke this key?",
            facts={
                "Key": str(key_id),
                "Afterwards": "Whoever calls with it is refused, within five seconds and for good",
            },
            button="Revoke it",
        )

    def work(session: Session) -> None:
        if not is_recorded(session, form.key):
            revoke_api_key(session, key_id)
            record(session, person, "api_keys.revoke", target=str(key_id), key=form.key)

    await run_in_async_database_transaction(work)
    return done(request, "The key is revoked.", "console_keys")


async def _page(
    request: Request,
    person: Person,
    *,
    problem: ExceptionWithErrorType | None = None,
    form: Form | None = None,
) -> Response:
    found = await run_in_async_database_transaction(list_api_keys)
    return render(
        request,
        person,
        "keys.html",
        problem=problem,
        form=form,
        keys=found,
        scopes=tuple(Scope),
        now=dt.datetime.now(dt.UTC),
        may_change=person.may(Permission.KEYS_CHANGE),
    )
