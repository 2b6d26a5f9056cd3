"""The inbox: Stripe's events, what each says, why it failed; to replay and to ignore."""

import json
import uuid
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.async_database import run_in_async_database_transaction
from src.common.exceptions import ExceptionWithErrorType, Invalid
from src.common.models.stripe_event import STRIPE_EVENT_STATUSES, StripeEvent
from src.common.stripe import inbox
from src.common.stripe.inbox_pages import events_page
from src.common.stripe.processing import Processor
from src.console.audit import is_recorded, record
from src.console.forms import Form, posted
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import confirm, done, path_of, render
from src.console.service import gateway_of, settings_of

router = APIRouter(prefix="/inbox")

PAGE_SIZE = 50
AT_ONCE_MAX = 25
"""How many events one form may name: they are settled one by one, and may ask Stripe."""
REPLAY, IGNORE = "replay", "ignore"


@router.get("", name="console_inbox")
async def show_inbox(
    request: Request,
    person: Annotated[Person, require(Permission.INBOX_SEE)],
    status: str = "",
    event_type: Annotated[str, Query(alias="type", max_length=100)] = "",
    days: Annotated[int, Query(ge=1, le=3_650)] = 30,
    cursor: str | None = None,
) -> Response:
    """Events by status and type, newest first."""
    found = await run_in_async_database_transaction(
        lambda session: events_page(
            session,
            limit=PAGE_SIZE,
            days=days,
            cursor=cursor,
            status=status or None,
            event_type=event_type or None,
        )
    )
    return render(
        request,
        person,
        "inbox.html",
        events=found.items,
        next_cursor=found.next_cursor,
        statuses=STRIPE_EVENT_STATUSES,
        chosen={"status": status, "type": event_type, "days": days},
        may_change=person.may(Permission.INBOX_CHANGE),
    )


@router.get("/{event_id}", name="console_event")
async def show_event(
    request: Request, person: Annotated[Person, require(Permission.INBOX_SEE)], event_id: str
) -> Response:
    """One event with its body, which may be about a person: so that it was seen is recorded."""

    def work(session: Session) -> StripeEvent:
        event = inbox.get_event(session, event_id)
        if event.body is not None:
            record(session, person, "stripe_events.see", target=event.event_id)
        return event

    event = await run_in_async_database_transaction(work)
    return render(
        request,
        person,
        "event.html",
        event=event,
        body=None if event.body is None else _laid_out(event.body),
        may_change=person.may(Permission.INBOX_CHANGE),
    )


@router.post("", name="console_events_change")
async def change_events(
    request: Request,
    person: Annotated[Person, require(Permission.INBOX_CHANGE)],
    form: Annotated[Form, posted()],
) -> Response:
    """Replay or ignore the chosen events."""
    what, names = form.required("do"), _chosen(form)
    if what not in {REPLAY, IGNORE}:
        raise Invalid("do: replay or ignore", "VALIDATION_ERROR", field="do")
    if not form.is_confirmed:
        events = await run_in_async_database_transaction(lambda session: _events(session, names))
        return confirm(
            request,
            person,
            form,
            heading=f"{what.capitalize()} {len(events)} of Stripe's events?",
            facts={each.event_id: _foreseen(each, what) for each in events},
            button=what.capitalize(),
            cancel=path_of(request, "console_inbox"),
        )
    change = _replay if what == REPLAY else _ignore
    told = [await change(request, person, form, name) for name in names]
    return done(request, "; ".join(told) + ".", "console_inbox")


def _foreseen(event: StripeEvent, what: str) -> str:
    if event.status == "processed":
        return f"{event.type}: processed already, so nothing will happen"
    if what == IGNORE:
        return f"{event.type}: {event.status}; nobody will try it again, but it can be replayed"
    if event.body is None:
        return f"{event.type}: its body was dropped, so nothing will happen"
    return f"{event.type}: {event.status}; what it says will be settled now"


def _chosen(form: Form) -> Sequence[str]:
    names = list(dict.fromkeys(form.texts("event")))
    if not 1 <= len(names) <= AT_ONCE_MAX:
        raise Invalid(
            f"event: choose from 1 to {AT_ONCE_MAX} events", "VALIDATION_ERROR", field="event"
        )
    return names


def _events(session: Session, names: Sequence[str]) -> Sequence[StripeEvent]:
    return session.scalars(
        select(StripeEvent).where(StripeEvent.event_id.in_(names)).order_by(StripeEvent.received_at)
    ).all()


async def _replay(request: Request, person: Person, form: Form, event_id: str) -> str:
    """Settle an event again: that it is asked for, and what came of it, are recorded."""

    def begin(session: Session) -> tuple[bool, bytes | None] | None:
        key = _key_of(form, event_id)
        if is_recorded(session, key):
            return None
        event = inbox.get_event(session, event_id)
        before = {"status": event.status}
        record(session, person, "stripe_events.replay", target=event_id, before=before, key=key)
        return event.livemode, event.body

    begun = await run_in_async_database_transaction(begin)
    if begun is None:
        return _settled_before(event_id)
    livemode, body = begun
    if body is None:
        return f"{event_id} has no body any more"
    processor = Processor(
        run_in_async_database_transaction, gateway_of(request), settings_of(request)
    )
    await processor.settle_stored(body, livemode=livemode, event_id=event_id)

    def end(session: Session) -> str:
        event = inbox.get_event(session, event_id)
        after = {"status": event.status}
        record(session, person, "stripe_events.replayed", target=event.event_id, after=after)
        return event.status

    return f"{event_id} is {await run_in_async_database_transaction(end)} now"


async def _ignore(_request: Request, person: Person, form: Form, event_id: str) -> str:
    def work(session: Session) -> bool:
        key = _key_of(form, event_id)
        if is_recorded(session, key):
            return False
        before = {"status": inbox.get_event(session, event_id).status}
        inbox.ignore_event(session, event_id)
        return record(
            session, person, "stripe_events.ignore", target=event_id, before=before, key=key
        )

    try:
        is_new = await run_in_async_database_transaction(work)
    except ExceptionWithErrorType as error:
        return f"{event_id}: {error.message}"
    return f"{event_id} is ignored now" if is_new else _settled_before(event_id)


def _settled_before(event_id: str) -> str:
    return f"{event_id} was replayed or ignored before by this form"


def _key_of(form: Form, event_id: str) -> uuid.UUID:
    """The form's key for one of its events."""
    return uuid.uuid5(form.key, event_id)


def _laid_out(body: bytes) -> str:
    """A body as JSON with its levels; as it is, where it is none."""
    try:
        document: Any = json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
    return json.dumps(document, indent=2, ensure_ascii=False)
