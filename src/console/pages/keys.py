"""API keys of other services: made, shown once, revoked."""

import datetime as dt
import uuid
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from src.common.accounts.api_keys import (
    MOVING_MONEY,
    IssuedKey,
    Scope,
    list_api_keys,
    revoke_api_key,
)
from src.common.approvals.keys import AskedKey, create_or_ask
from src.common.approvals.rules import Limits
from src.common.async_database import run_in_async_database_transaction
from src.common.exceptions import ExceptionWithErrorType, Invalid
from src.console.audit import is_recorded, record
from src.console.forms import Form, posted
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import confirm, done, path_of, render
from src.console.service import settings_of

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
    """Make a key, or ask for one that can move money; this one answer shows it."""
    try:
        days = form.integer("days", least=1, most=DAYS_MAX) if form.text("days") else None
        service, scopes = form.required("service"), form.texts("scopes")
        reason = form.reason()

        limits = Limits.of(settings_of(request))

        def work(session: Session) -> IssuedKey | AskedKey | None:
            if is_recorded(session, form.key):
                return None
            lasts = None if days is None else dt.timedelta(days=days)
            made = create_or_ask(
                session,
                service_name=service,
                scopes=scopes,
                expires_at=None if lasts is None else dt.datetime.now(dt.UTC) + lasts,
                requester=person.actor,
                reason=reason,
                request_key=f"console:{form.key}",
                limits=limits,
            )
            _record_key(session, person, form, made, {"scopes": sorted(scopes), "days": days})
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
    asked_id = made.asked.approval.approval_id if isinstance(made, AskedKey) else None
    return render(
        request, person, "key_made.html", key=made.key, service=service, asked_id=asked_id
    )


def _record_key(
    session: Session,
    person: Person,
    form: Form,
    made: IssuedKey | AskedKey,
    facts: Mapping[str, Any],
) -> None:
    target, after = None, dict(facts)
    if isinstance(made, AskedKey):
        after["asked_for"] = str(made.asked.approval.approval_id)
    else:
        target = str(made.record.key_id)
    record(
        session,
        person,
        "api_keys.create",
        target=target,
        reason=form.reason(),
        after=after,
        key=form.key,
    )


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
            cancel=path_of(request, "console_keys"),
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
        moving_money=MOVING_MONEY,
        now=dt.datetime.now(dt.UTC),
        may_change=person.may(Permission.KEYS_CHANGE),
    )
