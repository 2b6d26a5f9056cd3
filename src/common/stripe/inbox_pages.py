"""Pages of the inbox, for people who look through it."""

import base64
import binascii
import datetime as dt

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session, defer

from src.common.accounts.rules import storable
from src.common.exceptions import Invalid
from src.common.models.stripe_event import STRIPE_EVENT_STATUSES, StripeEvent
from src.common.postgres.pagination import Page


def events_page(
    session: Session,
    *,
    limit: int,
    days: int,
    cursor: str | None = None,
    status: str | None = None,
    event_type: str | None = None,
) -> Page[StripeEvent]:
    """A page of the events received within so many days, newest first, without their bodies.

    The days bound what a rare status or type may have to look through.

    Raises:
        Invalid: VALIDATION_ERROR, no cursor of ours, or no such status.
    """
    if status is not None and status not in STRIPE_EVENT_STATUSES:
        raise Invalid(
            f"status: one of {', '.join(STRIPE_EVENT_STATUSES)}", "VALIDATION_ERROR", field="status"
        )
    statement = (
        select(StripeEvent)
        .options(defer(StripeEvent.body, raiseload=True))
        .where(StripeEvent.received_at >= func.now() - dt.timedelta(days=days))
        .order_by(StripeEvent.received_at.desc(), StripeEvent.event_id.desc())
        .limit(limit + 1)
    )
    if status is not None:
        statement = statement.where(StripeEvent.status == status)
    if event_type is not None:
        statement = statement.where(StripeEvent.type == storable(event_type))
    if cursor is not None:
        place = tuple_(StripeEvent.received_at, StripeEvent.event_id)
        statement = statement.where(place < tuple_(*_place(cursor)))
    rows = session.scalars(statement).all()
    if len(rows) <= limit:
        return Page(rows, None)
    last = rows[limit - 1]
    return Page(rows[:limit], _cursor(last.received_at, last.event_id))


def _cursor(received_at: dt.datetime, event_id: str) -> str:
    written = f"{received_at.isoformat(timespec='microseconds')}|{event_id}"
    return base64.urlsafe_b64encode(written.encode()).decode()


def _place(cursor: str) -> tuple[dt.datetime, str]:
    try:
        instant, event_id = base64.urlsafe_b64decode(cursor.encode("ascii")).decode().split("|", 1)
        return dt.datetime.fromisoformat(instant).astimezone(dt.UTC), storable(event_id)
    except (ValueError, binascii.Error, OverflowError):
        raise Invalid(
            "cursor: none of ours; leave it out to start at the first page",
            "VALIDATION_ERROR",
            field="cursor",
        ) from None
