"""The inbox of Stripe's events: stores each once, settles each once.

Each step is a database transaction of its own, because the first must survive whatever the later
ones do: `store_event`, `finish_event` (what the event says, and that it is done, together), and
`attempts.record_failure` where that was not possible. All take the caller's open session and never
commit; `processing.py` puts them together.
"""

import datetime as dt
from collections.abc import Callable, Collection, Sequence
from enum import StrEnum

import stripe
from sqlalchemy import ColumnElement, Update, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from src.common.accounts.rules import storable
from src.common.exceptions import Conflict, Invalid, NotFound
from src.common.models.stripe_event import StripeEvent
from src.common.purchases.money_back import record_reversal
from src.common.purchases.operations import PurchaseStatus, end_order, settle_payment
from src.common.purchases.rules import Terms
from src.common.stripe import attempts
from src.common.stripe.lookup import HANDLED_TYPES, Facts
from src.common.stripe.wire import AnyEvent, ThinEvent

BODY_DAYS = 30
"""How long the body of a settled event is kept: as long as Stripe keeps it."""
OPEN_BODY_DAYS = 90
"""And of one that is unmatched or dead: until then somebody may replay it."""


class EventAnswer(StrEnum):
    """What Stripe is told about an event."""

    PROCESSED = "processed"
    ALREADY_PROCESSED = "already_processed"
    UNMATCHED = "unmatched"
    IGNORED = "ignored"
    ACCEPTED = "accepted"
    """Stored, not settled yet: the worker tries again."""


STATUS_BY_ANSWER = {
    EventAnswer.PROCESSED: "processed",
    EventAnswer.ALREADY_PROCESSED: "processed",
    EventAnswer.UNMATCHED: "unmatched",
    EventAnswer.IGNORED: "ignored",
}


def store_event(session: Session, event: AnyEvent, body: bytes) -> bool:
    """Keep a verified event, and begin an attempt at it; False if a copy is there already."""
    statement = (
        insert(StripeEvent)
        .values(
            livemode=event.livemode,
            event_id=event.id,
            type=event.type,
            api_version=event.api_version,
            object_id=event.object_id,
            body=body,
            remark=remark_on(event),
            stripe_created_at=event.created,
            attempts=1,
            lease_expires_at=attempts.lease(),
        )
        .on_conflict_do_nothing()
        .returning(StripeEvent.event_id)
    )
    return session.execute(statement).one_or_none() is not None


def statuses_of(session: Session, *, livemode: bool, event_ids: Sequence[str]) -> dict[str, str]:
    """The status of each of these events that is stored."""
    rows = session.execute(
        select(StripeEvent.event_id, StripeEvent.status).where(
            StripeEvent.livemode == livemode, StripeEvent.event_id.in_(event_ids)
        )
    )
    return {event_id: status for event_id, status in rows}  # noqa: C416  the types of both


def finish_event(
    session: Session, event: AnyEvent, facts: Facts | None, terms: Terms
) -> EventAnswer:
    """Do what a stored event says, unless that was done; copies wait for each other.

    An event that was ignored, unmatched or failed is judged anew: what it lacked may be there now.
    """

    def settle() -> EventAnswer:
        if facts is None:
            return EventAnswer.IGNORED
        return apply(session, facts, terms, cause=event.id)

    return _finish(session, event, settle)


def note_settled(session: Session, event: AnyEvent, answer: EventAnswer) -> EventAnswer:
    """Note of a stored event that what it says was done, in other database transactions."""
    return _finish(session, event, lambda: answer)


def _finish(session: Session, event: AnyEvent, settle: Callable[[], EventAnswer]) -> EventAnswer:
    # Marked first, as what it usually becomes: this locks the row, and is undone with the rest.
    if session.execute(_mark(event).returning(StripeEvent.event_id)).one_or_none() is None:
        return EventAnswer.ALREADY_PROCESSED
    answer = settle()
    status = STATUS_BY_ANSWER[answer]
    if status != "processed":
        session.execute(
            update(StripeEvent)
            .where(StripeEvent.livemode == event.livemode, StripeEvent.event_id == event.id)
            .values(status=status)
            .execution_options(synchronize_session=False)
        )
    return answer


def _mark(event: AnyEvent) -> Update:
    """Note that an event is processed, unless it is, or its body is dropped."""
    return (
        update(StripeEvent)
        .where(
            StripeEvent.livemode == event.livemode,
            StripeEvent.event_id == event.id,
            StripeEvent.status != "processed",
            StripeEvent.body.is_not(None),
        )
        .values(
            status="processed",
            error=None,
            processed_at=func.clock_timestamp(),
            next_attempt_at=None,
            lease_expires_at=None,
        )
        .execution_options(synchronize_session=False)
    )


def apply(session: Session, facts: Facts, terms: Terms, *, cause: str) -> EventAnswer:
    """Settle what an event, or an object found at Stripe, says."""
    outcomes = [
        settle_payment(session, payment, terms, cause=cause).status for payment in facts.payments
    ]
    changes = [record_reversal(session, reversal) for reversal in facts.reversals]
    changes += [end_order(session, payment, status) for payment, status in facts.ended]
    if PurchaseStatus.UNMATCHED in outcomes:
        return EventAnswer.UNMATCHED
    if PurchaseStatus.CREDITED in outcomes or any(changes):
        return EventAnswer.PROCESSED
    return EventAnswer.ALREADY_PROCESSED


def together(answers: Collection[EventAnswer]) -> EventAnswer:
    """What is answered where several parts of one were settled: that which asks for most."""
    asking = (EventAnswer.UNMATCHED, EventAnswer.PROCESSED)
    return next((each for each in asking if each in answers), EventAnswer.ALREADY_PROCESSED)


def events_matching(
    session: Session,
    *,
    limit: int,
    event_id: str | None = None,
    event_type: str | None = None,
    status: str | None = None,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
) -> Sequence[StripeEvent]:
    """Events by id, type, status and when they were received, newest first.

    Raises:
        Invalid: VALIDATION_ERROR, a type that no event has.
    """
    if event_type is not None and event_type != storable(event_type):
        raise Invalid("type: must be text", "VALIDATION_ERROR", field="type")
    statement = select(StripeEvent).order_by(StripeEvent.received_at.desc()).limit(limit)
    if event_id is not None:
        statement = statement.where(StripeEvent.event_id == event_id)
    if event_type is not None:
        statement = statement.where(StripeEvent.type == event_type)
    if status is not None:
        statement = statement.where(StripeEvent.status == status)
    if since is not None:
        statement = statement.where(StripeEvent.received_at >= since)
    if until is not None:
        statement = statement.where(StripeEvent.received_at < until)
    return session.scalars(statement).all()


def get_event(session: Session, event_id: str) -> StripeEvent:
    """The event of this id; of two modes the live one.

    Raises:
        NotFound: EVENT_NOT_FOUND.
    """
    row = None
    if event_id == storable(event_id):
        row = session.scalars(
            select(StripeEvent)
            .where(StripeEvent.event_id == event_id)
            .order_by(StripeEvent.livemode.desc())
            .limit(1)
        ).one_or_none()
    if row is None:
        raise NotFound(f"The inbox has no event {event_id}", "EVENT_NOT_FOUND")
    return row


def ignore_event(session: Session, event_id: str) -> StripeEvent:
    """Have nobody try an event again; a replay still can.

    Raises:
        NotFound: EVENT_NOT_FOUND.
        Conflict: EVENT_SETTLED, it was processed.
    """
    row = get_event(session, event_id)
    session.refresh(row, with_for_update=True)
    if row.status == "processed":
        raise Conflict("The event was processed", "EVENT_SETTLED")
    row.status = "ignored"
    row.next_attempt_at = row.lease_expires_at = None
    session.flush()
    return row


def drop_old_bodies(session: Session, limit: int = 1_000) -> int:
    """Forget the bodies of events settled long ago (rule 11); how many those were.

    Those that nobody settled have longer; after that only Stripe knows what they said.
    """
    old = (
        select(StripeEvent.livemode, StripeEvent.event_id)
        .where(
            StripeEvent.body.is_not(None),
            or_(
                StripeEvent.status.in_(("processed", "ignored")) & _older_than(BODY_DAYS),
                StripeEvent.status.in_(("unmatched", "dead")) & _older_than(OPEN_BODY_DAYS),
            ),
        )
        .order_by(StripeEvent.received_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("old")
    )
    dropped = session.execute(
        update(StripeEvent)
        .where(StripeEvent.livemode == old.c.livemode, StripeEvent.event_id == old.c.event_id)
        .values(body=None)
        .returning(StripeEvent.event_id)
        .execution_options(synchronize_session=False)
    )
    return len(dropped.all())


def _older_than(days: int) -> ColumnElement[bool]:
    return StripeEvent.received_at < func.now() - dt.timedelta(days=days)


def remark_on(event: AnyEvent) -> str | None:
    """What is unusual: we read it all the same, by the fields every version has."""
    if event.account is not None:
        return "CONNECTED_ACCOUNT"
    if event.snapshot_type not in HANDLED_TYPES:
        return "TYPE_NOT_HANDLED"
    if isinstance(event, ThinEvent):
        return None  # it has no version: what it names we read in our own
    version = (event.api_version or "").partition(".")[0]
    try:
        is_known = dt.date.fromisoformat(version) <= dt.date.fromisoformat(
            stripe.api_version.partition(".")[0]
        )
    except ValueError:
        is_known = False
    return None if is_known else "API_VERSION_UNKNOWN"
