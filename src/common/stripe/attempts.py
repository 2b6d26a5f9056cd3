"""Attempts at an event: counted before they begin, with the next one scheduled.

An attempt that kills its process can count nothing any more. All functions take the
caller's open session and never commit.
"""

import datetime as dt
from typing import NamedTuple

from sqlalchemy import ColumnElement, DateTime, and_, func, or_, select, update
from sqlalchemy.orm import Session

from src.common.exceptions import ExceptionWithErrorType
from src.common.models.stripe_event import StripeEvent
from src.common.stripe.wire import AnyEvent

UNSETTLED_STATUSES = ("received", "failed")
ERROR_LENGTH_MAX = 2_000
RETRY_DELAY_MAX_SECONDS = 3_600
ATTEMPTS_MAX = 16
"""After so many, some five hours, an event is dead: an operator looks, and replays it."""
TOGETHER_ATTEMPTS_MAX = 3
"""After so many an event is tried by itself alone."""
LEASE_SECONDS = 60
"""How long whoever took an event has it to itself; longer than any attempt takes."""
CUT_OFF = "ATTEMPT_CUT_OFF: the process ended during the last attempt"


class Backlog(NamedTuple):
    """The events that are not settled yet."""

    events: int
    overdue_seconds: float
    """How long ago the next attempt at one of them should have begun; 0 where none is late."""


def backlog(session: Session) -> Backlog:
    """How many events wait, and how late the worker is with them."""
    first_due = func.min(
        func.greatest(
            func.coalesce(StripeEvent.next_attempt_at, StripeEvent.received_at),
            StripeEvent.lease_expires_at,
        )
    )
    now = func.clock_timestamp(type_=DateTime(timezone=True))
    events, due_at, instant = session.execute(
        select(func.count(), first_due, now).where(StripeEvent.status.in_(UNSETTLED_STATUSES))
    ).one()
    late = 0.0 if due_at is None else (instant - due_at).total_seconds()
    return Backlog(events, max(late, 0.0))


def claim_next(session: Session, *, needs_lookup: bool) -> StripeEvent | None:
    """Begin an attempt at the event that has waited longest; nobody else has it until its lease.

    If the process ends meanwhile the event comes again, later each time, and in the end it is dead.
    """
    while (event := _next_due(session, needs_lookup=needs_lookup)) is not None:
        if event.attempts < ATTEMPTS_MAX:
            event.attempts += 1
            event.next_attempt_at = _promised(event.attempts)
            event.lease_expires_at = lease()
            session.flush()
            return event
        _bury(event, CUT_OFF)
        session.flush()
    return None


def claim_several(session: Session, *, limit: int) -> list[tuple[bool, str, bytes | None]]:
    """Begin attempts at those that have waited longest and need no answer of Stripe's.

    The mode, id and body of each. One that was tried often is left to `claim_next`: it may be what
    ended its process, and would end the attempts at all the others.
    """
    due = _due(needs_lookup=False) & (StripeEvent.attempts < TOGETHER_ATTEMPTS_MAX)
    # In this order they are an index's range each, however many there are.
    claimed = _claim(session, due & StripeEvent.next_attempt_at.is_(None), limit)
    if len(claimed) < limit:
        promised = due & StripeEvent.next_attempt_at.is_not(None)
        claimed += _claim(session, promised, limit - len(claimed))
    return claimed


def _claim(
    session: Session, which: ColumnElement[bool], limit: int
) -> list[tuple[bool, str, bytes | None]]:
    taken = (
        select(StripeEvent.livemode, StripeEvent.event_id, StripeEvent.next_attempt_at)
        .where(which)
        .order_by(StripeEvent.next_attempt_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("taken")
    )
    seconds = func.least(func.power(2, StripeEvent.attempts), RETRY_DELAY_MAX_SECONDS)
    rows = session.execute(
        update(StripeEvent)
        .where(StripeEvent.livemode == taken.c.livemode, StripeEvent.event_id == taken.c.event_id)
        .values(
            attempts=StripeEvent.attempts + 1,
            next_attempt_at=func.clock_timestamp() + seconds * dt.timedelta(seconds=1),
            lease_expires_at=lease(),
        )
        .returning(
            taken.c.next_attempt_at, StripeEvent.livemode, StripeEvent.event_id, StripeEvent.body
        )
        .execution_options(synchronize_session=False)
    ).all()
    in_turn = sorted(rows, key=lambda row: row[0] or dt.datetime.min.replace(tzinfo=dt.UTC))
    return [(livemode, event_id, body) for _, livemode, event_id, body in in_turn]


def _next_due(session: Session, *, needs_lookup: bool) -> StripeEvent | None:
    return session.scalars(
        select(StripeEvent)
        .where(_due(needs_lookup=needs_lookup))
        .order_by(StripeEvent.next_attempt_at.nulls_first())
        .limit(1)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).one_or_none()


def _due(*, needs_lookup: bool) -> ColumnElement[bool]:
    """Whether it is time for another attempt, and nobody is at it."""
    now = func.clock_timestamp()
    return and_(
        StripeEvent.status.in_(UNSETTLED_STATUSES),
        StripeEvent.needs_lookup == needs_lookup,
        or_(StripeEvent.next_attempt_at.is_(None), StripeEvent.next_attempt_at <= now),
        or_(StripeEvent.lease_expires_at.is_(None), StripeEvent.lease_expires_at <= now),
    )


def begin_attempt(session: Session, event: AnyEvent) -> bool:
    """Count an attempt at an event that was delivered again; False where it is settled for good."""
    begun = session.execute(
        update(StripeEvent)
        .where(
            StripeEvent.livemode == event.livemode,
            StripeEvent.event_id == event.id,
            StripeEvent.status != "processed",
            StripeEvent.body.is_not(None),
        )
        .values(attempts=StripeEvent.attempts + 1)
        .returning(StripeEvent.event_id)
        .execution_options(synchronize_session=False)
    )
    return begun.one_or_none() is not None


def hand_back(
    session: Session, *, livemode: bool, event_id: str, needs_lookup: bool | None = None
) -> None:
    """Leave an event to whoever claims it next, as if this attempt had not begun.

    `needs_lookup` notes that Stripe has to be asked about it, which this attempt was not to do.
    """
    row = _unsettled(session, livemode=livemode, event_id=event_id)
    if row is None:
        return
    row.attempts = max(row.attempts - 1, 0)
    row.next_attempt_at = func.clock_timestamp()
    row.lease_expires_at = None
    if needs_lookup is not None:
        row.needs_lookup = needs_lookup
    session.flush()


def record_failure(
    session: Session, *, livemode: bool, event_id: str, error: BaseException
) -> None:
    """Note why an attempt failed, and when there may be another, or that the event is dead.

    Not on a row that was processed: a copy of the event may have settled it meanwhile. One that
    nobody tries any more, dead, ignored or unmatched, and somebody replayed, stays what it is, with
    the new error.
    """
    row = _unsettled(session, livemode=livemode, event_id=event_id)
    if row is None:
        return
    row.error = reason = _describe(error)
    row.lease_expires_at = None
    if row.status in UNSETTLED_STATUSES:
        if row.attempts >= ATTEMPTS_MAX:
            _bury(row, reason)
        else:
            row.status = "failed"
            row.next_attempt_at = _promised(row.attempts)
    session.flush()


def count_dead_events(session: Session) -> int:
    """How many events nobody tries any more."""
    return session.scalars(select(func.count()).where(StripeEvent.status == "dead")).one()


def lease() -> ColumnElement[dt.datetime]:
    """Until when whoever takes an event now has it."""
    return func.clock_timestamp() + dt.timedelta(seconds=LEASE_SECONDS)


def _unsettled(session: Session, *, livemode: bool, event_id: str) -> StripeEvent | None:
    return session.scalars(
        select(StripeEvent)
        .where(
            StripeEvent.livemode == livemode,
            StripeEvent.event_id == event_id,
            StripeEvent.status != "processed",
        )
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()


def _promised(attempts: int) -> ColumnElement[dt.datetime]:
    """When an attempt follows that many: after 1, 2, 4 … seconds, an hour at most."""
    delay = min(2 ** max(attempts - 1, 0), RETRY_DELAY_MAX_SECONDS)
    return func.clock_timestamp() + dt.timedelta(seconds=delay)


def _bury(row: StripeEvent, error: str) -> None:
    row.status, row.error = "dead", error
    row.next_attempt_at = row.lease_expires_at = None


def _describe(error: BaseException) -> str:
    if isinstance(error, ExceptionWithErrorType):
        return f"{error.error_type}: {error.message}"[:ERROR_LENGTH_MAX]
    return f"{type(error).__name__}: {error}"[:ERROR_LENGTH_MAX]
