"""The audit trail: who did and saw what, newest first."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.async_database import run_in_async_database_transaction
from src.common.exceptions import Invalid
from src.common.models.console_action import ConsoleAction
from src.common.models.console_session import ConsolePerson
from src.common.postgres.counts import RowCount, count_rows
from src.console.audit import record
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import render
from src.console.wording import user_named

router = APIRouter(prefix="/audit")
PAGE_SIZE = 100


@router.get("", name="console_audit")
async def show_audit_trail(
    request: Request,
    person: Annotated[Person, require(Permission.AUDIT_SEE)],
    actor: Annotated[str, Query(max_length=60, pattern=r"^[\w:.-]*$")] = "",
    user_id: Annotated[str, Query(max_length=36)] = "",
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
) -> Response:
    """Of everybody, of one person, or about one user; that it was looked at is in it as well."""
    about = _user_id(user_id) if user_id else None

    def work(session: Session) -> tuple[Sequence[ConsoleAction], Mapping[str, str], RowCount]:
        rows = session.scalars(
            select(ConsoleAction)
            .where(
                *([ConsoleAction.actor == actor] if actor else []),
                *([ConsoleAction.user_id == about] if about else []),
                *([ConsoleAction.action_id < before] if before else []),
            )
            .order_by(ConsoleAction.action_id.desc())
            .limit(PAGE_SIZE + 1)
        ).all()
        names = names_of(session, [each.actor for each in rows])
        count = count_rows(session, ConsoleAction)
        looked_for = {"actor": actor or None, "before": before}
        record(session, person, "audit.see", user_id=about, after=looked_for)
        return rows, names, count

    rows, names, count = await run_in_async_database_transaction(work)
    shown = rows[:PAGE_SIZE]
    return render(
        request,
        person,
        "audit_trail.html",
        actions=shown,
        names=names,
        count=count,
        chosen={"actor": actor, "user_id": user_id},
        next_before=shown[-1].action_id if len(rows) > PAGE_SIZE else None,
    )


def names_of(session: Session, actors: Iterable[str]) -> Mapping[str, str]:
    """What colleagues call these, by actor; who never signed in to the console has no name."""
    ids = {uuid.UUID(found) for found in map(user_named, actors) if found is not None}
    if not ids:
        return {}
    people = session.execute(
        select(ConsolePerson.person_id, ConsolePerson.name).where(ConsolePerson.person_id.in_(ids))
    )
    return {f"user:{person_id}": name for person_id, name in people}


def _user_id(written: str) -> uuid.UUID:
    try:
        return uuid.UUID(written)
    except ValueError:
        raise Invalid("user_id: no id", "VALIDATION_ERROR", field="user_id") from None
