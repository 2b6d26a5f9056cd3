"""The audit trail: `record` what a person did or saw, in the database transaction of doing it."""

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from src.common.exceptions import Unauthenticated
from src.common.models.console_action import ConsoleAction
from src.common.postgres.errors import sqlstate_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from src.console.people import Person


def is_recorded(session: "Session", key: uuid.UUID) -> bool:
    """Whether this form was done; whoever sends it again meanwhile waits for the first to end.

    Ask first, then do it, and `record` it with the key in the same database transaction.
    """
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(str(key), 0))))
    found = select(ConsoleAction.action_id).where(ConsoleAction.form_key == key)
    return session.scalars(found).one_or_none() is not None


def record(
    session: "Session",
    person: "Person",
    action: str,
    *,
    user_id: uuid.UUID | None = None,
    target: str | None = None,
    reason: str | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    key: uuid.UUID | None = None,
) -> bool:
    """Note what `person` did or saw; False where this form was noted before, and so done.

    Nobody is named: ids and figures only, in `before` and `after` too.

    Args:
        session: The open session of what is done.
        person: Who.
        action: What, such as `credits.give`.
        user_id: The user it is about.
        target: The id of what it is about otherwise.
        reason: Why, as the person says.
        before: What was, as JSON.
        after: What is.
        key: The form's.

    Raises:
        Unauthenticated: AUTHENTICATION_FAILURE, the session has ended meanwhile.
    """
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    statement = (
        insert(ConsoleAction)
        .values(
            actor=person.actor,
            action=action,
            user_id=user_id,
            target=target,
            reason=reason,
            before=None if before is None else dict(before),
            after=None if after is None else dict(after),
            form_key=key,
            request_id=None if request_id is None else str(request_id),
        )
        .on_conflict_do_nothing(index_elements=[ConsoleAction.form_key])
        .returning(ConsoleAction.action_id)
    )
    try:
        return session.execute(statement).one_or_none() is not None
    except DBAPIError as error:
        if sqlstate_of(error) == "P0001" and _ABSENT in str(error.orig):
            raise _session_is_over() from None
        raise


_ABSENT = "AUDIT_TRAIL_ABSENT"


def _session_is_over() -> Unauthenticated:
    """The person signed out meanwhile, or the session's time was over."""
    return Unauthenticated(
        "Your session has just ended: sign in again. Nothing was done", "AUTHENTICATION_FAILURE"
    )
