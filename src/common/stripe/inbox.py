"""The inbox: store first, then process once.

Three steps, each its own database transaction, because the first must survive whatever the second
does: `store_event`, `process_event`, and `record_failure` where processing raised. All take the
caller's open session and never commit.
"""

import datetime as dt
from collections.abc import Sequence
from enum import StrEnum

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from src.common.exceptions import ExceptionWithErrorType
from src.common.models.stripe_event import StripeEvent
from src.common.purchases.operations import PurchaseStatus, settle_checkout
from src.common.settings import Settings
from src.common.stripe.wire import CheckoutSession, Event, parse_event

CHECKOUT_EVENTS = frozenset(
    {"checkout.session.completed", "checkout.session.async_payment_succeeded"}
)
UNSETTLED_STATUSES = ("received", "failed")
ERROR_LENGTH_MAX = 2_000
RETRY_DELAY_MAX_SECONDS = 3_600


class EventAnswer(StrEnum):
    """What Stripe is told about an event (DESIGN §6)."""

    PROCESSED = "processed"
    ALREADY_PROCESSED = "already_processed"
    UNMATCHED = "unmatched"
    IGNORED = "ignored"


_ANSWER_BY_PURCHASE = {
    PurchaseStatus.CREDITED: EventAnswer.PROCESSED,
    PurchaseStatus.ALREADY_CREDITED: EventAnswer.ALREADY_PROCESSED,
    PurchaseStatus.UNMATCHED: EventAnswer.UNMATCHED,
}
_STATUS_BY_ANSWER = {
    EventAnswer.PROCESSED: "processed",
    EventAnswer.ALREADY_PROCESSED: "processed",
    EventAnswer.UNMATCHED: "unmatched",
    EventAnswer.IGNORED: "ignored",
}


def store_event(session: Session, event: Event, body: bytes) -> bool:
    """Keep a verified event; False if a copy of it is there already."""
    statement = (
        insert(StripeEvent)
        .values(
            livemode=event.livemode,
            event_id=event.id,
            type=event.type,
            api_version=event.api_version,
            object_id=event.object_id,
            body=body,
            stripe_created_at=event.created,
        )
        .on_conflict_do_nothing()
        .returning(StripeEvent.event_id)
    )
    return session.execute(statement).one_or_none() is not None


def process_event(
    session: Session, *, livemode: bool, event_id: str, settings: Settings
) -> EventAnswer:
    """Do what a stored event asks for, unless that was done; copies wait for each other.

    An event that was ignored, unmatched or failed is judged anew: what it lacked may be there now.
    """
    row = session.scalars(
        select(StripeEvent)
        .where(StripeEvent.livemode == livemode, StripeEvent.event_id == event_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()
    if row.status == "processed" or row.body is None:
        return EventAnswer.ALREADY_PROCESSED
    answer = _handle(session, parse_event(row.body), settings)
    row.status = _STATUS_BY_ANSWER[answer]
    row.attempts += 1
    row.error = None
    row.processed_at = func.clock_timestamp()
    row.next_attempt_at = None
    session.flush()
    return answer


def record_failure(
    session: Session, *, livemode: bool, event_id: str, error: BaseException
) -> None:
    """Note why processing failed, and when it may be tried again.

    Only on a row that is still unsettled: a copy of the event may have settled it meanwhile.
    """
    session.execute(
        update(StripeEvent)
        .where(
            StripeEvent.livemode == livemode,
            StripeEvent.event_id == event_id,
            StripeEvent.status.in_(UNSETTLED_STATUSES),
        )
        .values(
            status="failed",
            attempts=StripeEvent.attempts + 1,
            error=_describe(error),
            next_attempt_at=func.clock_timestamp()
            + func.least(
                func.power(2, func.least(StripeEvent.attempts, 20)) * dt.timedelta(seconds=1),
                dt.timedelta(seconds=RETRY_DELAY_MAX_SECONDS),
            ),
        )
    )


def newest_events(session: Session, limit: int) -> Sequence[StripeEvent]:
    """The events received last, newest first."""
    return session.scalars(
        select(StripeEvent).order_by(StripeEvent.received_at.desc()).limit(limit)
    ).all()


def _handle(session: Session, event: Event, settings: Settings) -> EventAnswer:
    """One handler an event type; types we do not handle are kept and marked."""
    if event.type not in CHECKOUT_EVENTS:
        return EventAnswer.IGNORED
    checkout = CheckoutSession.model_validate(event.data.object)
    outcome = settle_checkout(
        session,
        checkout.as_payment(),
        env=settings.env,
        livemode=settings.stripe_livemode,
        event_id=event.id,
    )
    return _ANSWER_BY_PURCHASE[outcome.status]


def _describe(error: BaseException) -> str:
    if isinstance(error, ExceptionWithErrorType):
        return f"{error.error_type}: {error.message}"[:ERROR_LENGTH_MAX]
    return f"{type(error).__name__}: {error}"[:ERROR_LENGTH_MAX]
