"""The fields we read of Stripe's events and payments; the raw body keeps everything else.

Shapes: Stripe's API reference, "The Event object" and so for each. What we ask for ourselves has
the shape of our library's API version; an event has that of its endpoint's, which may be of 2018.
So each field that moved is read from all its places, and what a shape does not tell is None.
Refunds, disputes and credit notes are in `wire_money_back.py`.
"""

import uuid
from typing import Annotated, Any

from pydantic import AwareDatetime, BeforeValidator, ValidationError

from src.common.exceptions import BadRequest
from src.common.purchases.rules import Payment
from src.common.stripe.wire_money_back import RefundList
from src.common.stripe.wire_types import (
    Cents,
    ExpandableId,
    Id,
    Text,
    UnixTime,
    Wire,
    without_nul,
)


class EventData(Wire):
    """`event.data`."""

    object: dict[str, Any]


class Event(Wire):
    """`event`: something that happened at Stripe, and the object as it was then (a snapshot)."""

    id: Id
    type: Id
    created: UnixTime
    livemode: bool
    api_version: Text | None = None
    account: Text | None = None
    """The connected account it is from; of our own account's events NULL."""
    data: EventData

    @property
    def snapshot_type(self) -> str:
        """Its type."""
        return self.type

    @property
    def object_id(self) -> str | None:
        """The id of the object the event is about."""
        found = self.data.object.get("id")
        return without_nul(found) if isinstance(found, str) else None


class WebhookEndpoint(Wire):
    """`webhook_endpoint`: where Stripe sends which events."""

    id: Id
    url: Text
    status: Text
    """`enabled` or `disabled`."""
    enabled_events: tuple[Text, ...]
    """Types of events; `*` is all of them."""
    api_version: Text | None = None
    """Of its events; None where that is the account's default version."""


class RelatedObject(Wire):
    """`v2.core.event.related_object`: what it is about."""

    id: Id | None = None
    """None where there is but one of its type."""
    type: Text


class ThinEvent(Wire):
    """`v2.core.event`, as Stripe notifies it: what happened to which object, without the object.

    Source: docs.stripe.com/event-destinations, "Thin events".
    """

    id: Id
    type: Id
    created: AwareDatetime
    livemode: bool = False
    context: Text | None = None
    """Whose it is, where it is not our own account's: `acct_…`, or the path to it."""
    related_object: RelatedObject | None = None
    api_version: None = None

    @property
    def snapshot_type(self) -> str:
        """The type of the snapshot event that tells the same: `v1.charge.refunded` is thin."""
        return self.type.removeprefix("v1.")

    @property
    def account(self) -> str | None:
        """The account it is from; None for our own."""
        return self.context.rpartition("/")[2] if self.context else None

    @property
    def object_id(self) -> str | None:
        """The id of the object the event is about."""
        return self.related_object.id if self.related_object else None

    def with_object(self, found: dict[str, Any]) -> Event:
        """The snapshot event that would have told it, of the object as it is now."""
        return Event(
            id=self.id,
            type=self.snapshot_type,
            created=self.created,
            livemode=self.livemode,
            account=self.account,
            data=EventData(object=found),
        )


AnyEvent = Event | ThinEvent


class _Kind(Wire):
    """What tells the two apart."""

    object: Any = None


def _expanded(found: object) -> object:
    return {"id": found} if isinstance(found, str) else found


class TotalDetails(Wire):
    """`checkout.session.total_details`."""

    amount_discount: Cents = 0
    amount_tax: Cents = 0


class SessionPayment(Wire):
    """`checkout.session.payment_intent`: its id or, expanded, what arrived of it."""

    id: Id
    status: Text | None = None
    currency: Text | None = None
    amount_received: Cents | None = None


class CheckoutSession(Wire):
    """`checkout.session`: a page on which somebody pays, or did."""

    id: Id
    livemode: bool
    mode: Text | None = None
    status: Text | None = None
    payment_status: Text | None = None
    payment_intent: Annotated[SessionPayment | None, BeforeValidator(_expanded)] = None
    invoice: ExpandableId = None
    currency: Text | None = None
    amount_subtotal: Cents | None = None
    amount_total: Cents | None = None
    total_details: TotalDetails | None = None
    metadata: dict[str, Text] | None = None
    url: Text | None = None
    created: UnixTime | None = None
    expires_at: UnixTime | None = None

    @property
    def tells_all(self) -> bool:
        """Whether it tells all that we judge by.

        Since 2019-10 there is `mode`, since 2020 `payment_status`, currency, amounts and
        `total_details`.
        """
        if self.mode is None or self.payment_status is None:
            return False
        amounts = (self.amount_subtotal, self.amount_total)
        if self.mode != "payment":
            return True
        if None in (self.currency, *amounts):
            return False
        return self.total_details is not None or amounts[0] == amounts[1]

    def as_payment(self) -> Payment:
        """The session in our own terms.

        What was paid is what arrived, where Stripe was asked for the PaymentIntent with it: of a
        payment that is captured by hand that may be less than the session's total.
        """
        paid = self.payment_intent
        total = self.amount_total
        if paid and paid.status == "succeeded" and paid.currency == self.currency:
            total = paid.amount_received
        totals = self.total_details or TotalDetails()
        return _payment(
            self.metadata,
            stripe_session_id=self.id,
            livemode=self.livemode,
            mode=self.mode,
            payment_status=self.payment_status,
            payment_intent_id=paid.id if paid else None,
            invoice_id=self.invoice,
            currency=self.currency,
            amount_subtotal_cents=self.amount_subtotal,
            amount_total_cents=total,
            discount_cents=totals.amount_discount,
            tax_cents=totals.amount_tax,
        )


class PaymentIntent(Wire):
    """`payment_intent`: one payment."""

    id: Id
    livemode: bool
    status: Text | None = None
    amount: Cents | None = None
    amount_received: Cents | None = None
    currency: Text | None = None
    metadata: dict[str, Text] | None = None
    invoice: ExpandableId = None
    """Until 2025-03-31."""
    created: UnixTime | None = None

    @property
    def has_succeeded(self) -> bool:
        """Whether the money has arrived."""
        return self.status == "succeeded"

    def as_payment(self, *, invoice_id: str | None = None) -> Payment:
        """A payment without a Checkout Session: of an invoice, or by nobody's page."""
        invoice_id = invoice_id or self.invoice
        return _payment(
            self.metadata,
            stripe_session_id=invoice_id or self.id,
            livemode=self.livemode,
            mode="invoice" if invoice_id else "payment",
            payment_status="paid" if self.has_succeeded else "unpaid",
            payment_intent_id=self.id,
            invoice_id=invoice_id,
            currency=self.currency,
            amount_subtotal_cents=self.amount,
            amount_total_cents=self.amount_received,
        )


class Invoice(Wire):
    """`invoice`."""

    id: Id
    livemode: bool
    status: Text | None = None
    currency: Text | None = None
    amount_paid: Cents | None = None
    metadata: dict[str, Text] | None = None
    payment_intent: ExpandableId = None
    """Until 2025-03-31; then an invoice may have several payments, which are listed."""

    def as_payment(self) -> Payment:
        """An invoice on which nothing was charged."""
        return _payment(
            self.metadata,
            stripe_session_id=self.id,
            livemode=self.livemode,
            mode="invoice",
            payment_status="paid",
            payment_intent_id=None,
            invoice_id=self.id,
            currency=self.currency,
            amount_subtotal_cents=self.amount_paid,
            amount_total_cents=self.amount_paid,
        )


class Charge(Wire):
    """`charge`: one attempt of a payment that took money."""

    id: Id
    livemode: bool
    payment_intent: ExpandableId = None
    paid: bool = False
    captured: bool = False
    amount: Cents | None = None
    amount_captured: Cents | None = None
    """Since 2020; before, a charge was for what was captured."""
    currency: Text | None = None
    metadata: dict[str, Text] | None = None
    invoice: ExpandableId = None
    """Until 2025-03-31."""
    refunds: RefundList | None = None
    """Not told unasked since 2022-11-15."""

    def as_payment_intent(self, payment_intent_id: str) -> PaymentIntent:
        """Its PaymentIntent, as far as the charge tells: metadata and all."""
        taken = self.amount if self.amount_captured is None else self.amount_captured
        return PaymentIntent(
            id=payment_intent_id,
            livemode=self.livemode,
            status="succeeded" if self.paid and self.captured else "requires_capture",
            amount=self.amount,
            amount_received=taken,
            currency=self.currency,
            metadata=self.metadata,
            invoice=self.invoice,
        )


def _payment(metadata: dict[str, str] | None, **facts: Any) -> Payment:
    """A payment with what its metadata says of who and what."""
    metadata = metadata or {}
    return Payment(
        env=metadata.get("env"),
        user_id=_uuid_or_none(metadata.get("user_id")),
        package_id=metadata.get("package_id"),
        credits=metadata.get("credits"),
        order_id=_uuid_or_none(metadata.get("order_id")),
        **facts,
    )


def parse_event(body: bytes) -> AnyEvent:
    """The event in a verified body, a snapshot or a thin one.

    Raises:
        BadRequest: WEBHOOK_PAYLOAD_INVALID, this is no event of Stripe's.
    """
    try:
        is_thin = _Kind.model_validate_json(body).object == "v2.core.event"
        return (ThinEvent if is_thin else Event).model_validate_json(body)
    except ValidationError as error:
        fields = ", ".join(
            ".".join(map(str, problem["loc"])) or "body" for problem in error.errors()
        )
        raise BadRequest(
            f"This is no Stripe event: {fields}", "WEBHOOK_PAYLOAD_INVALID", fields=fields
        ) from None


def _uuid_or_none(text: str | None) -> uuid.UUID | None:
    try:
        return uuid.UUID(text) if text else None
    except ValueError:
        return None
