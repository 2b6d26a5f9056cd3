"""All that is known of one payment, in order of time: Stripe's events, and what we did of them.

A payment is found by any name it has: our purchase's or order's id, its session, PaymentIntent,
invoice, refund, dispute or credit note. It need not have credited anybody.
"""

import datetime as dt
import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from src.common.accounts.rules import storable
from src.common.credits.domain.views import HistoryEntry
from src.common.exceptions import NotFound
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.refund_request import RefundRequest
from src.common.models.stripe_event import StripeEvent
from src.common.models.stripe_reversal import StripeReversal
from src.common.models.unmatched_payment import PAYMENT_INTENT_ID, UnmatchedPayment
from src.common.purchases.queries import SHOWN_MAX, Purchase, PurchaseDetails, find_purchase

STRIPE = "stripe"
"""Who tells of events, and what came of them."""


class StepKind(StrEnum):
    """What happened; at the same instant in this order."""

    ORDER = "order"
    EVENT = "event"
    UNMATCHED = "unmatched"
    RESOLUTION = "resolution"
    REFUND_REQUEST = "refund_request"
    REVERSAL = "reversal"
    PURCHASE = "purchase"
    ENTRY = "entry"


_ORDER_OF_KINDS = {kind: place for place, kind in enumerate(StepKind)}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that happened with a payment."""

    at: dt.datetime
    """When it was written here; an event when it arrived."""
    kind: StepKind
    name: str
    """The event's, refund's, order's … id; of an entry its `seq`."""
    what: str
    """The event's type, the entry's kind, a refund's, dispute's or credit note's kind; the reason
    of an unmatched payment; the package of an order or a purchase."""
    actor: str
    """Whose doing it was: `stripe`, or `user:`, `key:` or `system:` and an id."""
    status: str | None = None
    """How it stands now."""
    amount_cents: int | None = None
    currency: str | None = None
    credits: int | None = None
    """Into (+) or out of (-) the balance; of an order or a purchase what it is for."""
    note: str | None = None
    """What was said about it: an error, a reason, a resolution."""
    happened_at: dt.datetime | None = None
    """Of an event: when Stripe made it, to the second."""


@dataclass(frozen=True, kw_only=True)
class PaymentTimeline:
    """A payment, and all that happened with it."""

    name: str
    """What it was asked for by."""
    purchase: Purchase | None
    """None where nobody was credited, or not yet."""
    order: CheckoutOrder | None
    """None where it is of no order of ours."""
    unmatched: Sequence[UnmatchedPayment]
    steps: Sequence[Step]
    """In order of time."""

    @property
    def user_id(self) -> uuid.UUID | None:
        """Whose it is, as far as anybody knows."""
        if self.purchase is not None:
            return self.purchase.transaction.user_id
        return self.order.user_id if self.order is not None else None


def payment_timeline(session: Session, name: str) -> PaymentTimeline:
    """What is known of the payment of this name.

    A fixed number of statements, each of which an index serves.

    Raises:
        NotFound: TRANSACTION_NOT_FOUND, nothing here has this name.
        Invalid: VALIDATION_ERROR, several purchases have it, or an id that we do not keep.
    """
    details = _find_purchase(session, name)
    names = _names_of_purchase(details) if details else {name}
    reversals = details.reversals if details else _reversals(session, names)
    names |= {each.payment_intent_id or name for each in reversals}
    unmatched = _unmatched(session, names)
    for row in unmatched:
        names |= {row.stripe_object_id, str(row.details.get("payment_intent_id") or name)}
    order = details.order if details else _find_order(session, name, names)
    if details is None and order is not None and order.stripe_session_id is not None:
        names.add(order.stripe_session_id)
        details = _find_purchase(session, order.stripe_session_id)
        names |= _names_of_purchase(details) if details else set()
    reversals = details.reversals if details else _reversals(session, names)
    names |= {each.reversal_id for each in reversals}
    events = _events(session, names)
    charges = {each for event in events for each in _charges(event)} - names
    if charges:
        events = [*events, *_events(session, charges)]
    steps = [
        *_of_order(order),
        *map(_of_event, events),
        *(step for row in unmatched for step in _of_unmatched(row)),
        *map(_of_reversal, reversals),
        *(_of_details(details) if details else ()),
    ]
    if not steps:
        raise NotFound(f"No payment has the id {name}", "TRANSACTION_NOT_FOUND")
    return PaymentTimeline(
        name=name,
        purchase=details.purchase if details else None,
        order=order,
        unmatched=unmatched,
        steps=sorted(steps, key=lambda step: (step.at, _ORDER_OF_KINDS[step.kind])),
    )


def _find_purchase(session: Session, name: str) -> PurchaseDetails | None:
    try:
        return find_purchase(session, name)
    except NotFound:
        return None


def _find_order(session: Session, name: str, names: Iterable[str]) -> CheckoutOrder | None:
    """Of this id, or of a session among the names."""
    try:
        return session.get(CheckoutOrder, uuid.UUID(name))
    except ValueError:
        wanted = select(CheckoutOrder).where(CheckoutOrder.stripe_session_id.in_(list(names)))
        return session.scalars(wanted.limit(1)).one_or_none()


def _names_of_purchase(details: PurchaseDetails) -> set[str]:
    """What Stripe's objects of this payment are called, as far as the purchase knows."""
    paid = details.purchase.transaction
    given = (paid.stripe_session_id, paid.payment_intent_id, paid.invoice_id)
    return {each for each in given if each is not None}


def _unmatched(session: Session, names: Iterable[str]) -> Sequence[UnmatchedPayment]:
    wanted = list(names)
    return session.scalars(
        select(UnmatchedPayment)
        .where(
            or_(
                and_(
                    UnmatchedPayment.livemode.in_((False, True)),  # so that the primary key serves
                    UnmatchedPayment.stripe_object_id.in_(wanted),
                ),
                PAYMENT_INTENT_ID.in_(wanted),
            )
        )
        .order_by(UnmatchedPayment.created_at)
        .limit(SHOWN_MAX)
    ).all()


def _reversals(session: Session, names: Iterable[str]) -> Sequence[StripeReversal]:
    """Money back of a payment that has not arrived."""
    wanted = list(names)
    return session.scalars(
        select(StripeReversal)
        .where(
            or_(
                StripeReversal.payment_intent_id.in_(wanted),
                and_(
                    StripeReversal.livemode.in_((False, True)),
                    StripeReversal.reversal_id.in_(wanted),
                ),
            )
        )
        .order_by(StripeReversal.created_at, StripeReversal.reversal_id)
        .limit(SHOWN_MAX)
    ).all()


def _events(session: Session, names: Iterable[str]) -> Sequence[StripeEvent]:
    return session.scalars(
        select(StripeEvent)
        .where(StripeEvent.object_id.in_(list(names)))
        .order_by(StripeEvent.received_at, StripeEvent.event_id)
        .limit(SHOWN_MAX)
    ).all()


def _charges(event: StripeEvent) -> Iterable[str]:
    """The charges that an event names, while its body is kept; nothing else here knows them."""
    try:
        body: Any = json.loads(event.body or b"{}")
        about = body["data"]["object"]
        found = [about.get(field) for field in ("charge", "latest_charge")]
    except (ValueError, LookupError, TypeError, AttributeError):
        return
    for each in found:
        if isinstance(each, str) and each == storable(each):
            yield each


def _of_order(order: CheckoutOrder | None) -> Iterable[Step]:
    if order is not None:
        yield Step(
            at=order.created_at,
            kind=StepKind.ORDER,
            name=str(order.order_id),
            what=order.package_id,
            actor=f"user:{order.user_id}",
            status=order.status,
            amount_cents=order.amount_cents,
            currency=order.currency,
            credits=order.credits,
        )


def _of_event(event: StripeEvent) -> Step:
    return Step(
        at=event.received_at,
        kind=StepKind.EVENT,
        name=event.event_id,
        what=event.type,
        actor=STRIPE,
        status=event.status,
        note=event.error or event.remark,
        happened_at=event.stripe_created_at,
    )


def _of_unmatched(row: UnmatchedPayment) -> Iterable[Step]:
    noted = Step(
        at=row.created_at,
        kind=StepKind.UNMATCHED,
        name=row.stripe_object_id,
        what=row.reason,
        actor=STRIPE,
        status=row.status,
        note=row.explanation,
    )
    yield noted
    if row.resolved_at is not None:
        yield Step(
            at=row.resolved_at,
            kind=StepKind.RESOLUTION,
            name=row.stripe_object_id,
            what=row.reason,
            actor=row.actor or STRIPE,
            note=row.resolution,
        )


def _of_reversal(reversal: StripeReversal) -> Step:
    return Step(
        at=reversal.created_at,
        kind=StepKind.REVERSAL,
        name=reversal.reversal_id,
        what=reversal.kind,
        actor=STRIPE,
        status=reversal.status,
        amount_cents=reversal.amount_cents,
        currency=reversal.currency,
    )


def _of_details(details: PurchaseDetails) -> Iterable[Step]:
    paid = details.purchase.transaction
    yield Step(
        at=paid.created_at,
        kind=StepKind.PURCHASE,
        name=str(paid.transaction_id),
        what=details.purchase.package_id or "",
        actor=f"user:{paid.user_id}",
        status=details.purchase.state,
        amount_cents=paid.amount_paid_cents,
        currency=paid.currency,
        credits=paid.credits_added,
    )
    for request in details.refund_requests:
        yield _of_request(request, paid.currency)
    yield from map(_of_entry, details.entries)


def _of_request(request: RefundRequest, currency: str) -> Step:
    said = filter(None, (request.reason, request.error))
    return Step(
        at=request.created_at,
        kind=StepKind.REFUND_REQUEST,
        name=request.refund_id or request.idempotency_key,
        what="refund",
        actor=request.actor,
        status=request.status,
        amount_cents=request.amount_cents,
        currency=currency,
        note="; ".join(said) or None,
    )


def _of_entry(entry: HistoryEntry) -> Step:
    return Step(
        at=entry.created_at,
        kind=StepKind.ENTRY,
        name=str(entry.seq),
        what=entry.kind,
        actor=entry.actor,
        credits=entry.amount,
        note=entry.reference,
    )
