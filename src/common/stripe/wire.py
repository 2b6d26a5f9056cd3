"""What we read of Stripe's objects, and nothing else; everything more is kept in the raw body.

Shapes: Stripe's API reference, "The Event object" and so for each.
"""

import datetime as dt
import uuid
from decimal import Decimal
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from src.common.exceptions import BadRequest
from src.common.models.stripe_reversal import ReversalKind
from src.common.purchases.reversals import Movement, Reversal, disputed_funds
from src.common.purchases.rules import Payment


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


def _id_of(value: object) -> object:
    """An object's id, whether Stripe sent the id or, expanded, the object."""
    return cast("dict[str, object]", value).get("id") if isinstance(value, dict) else value


def _without_nul(text: str) -> str:
    """PostgreSQL stores no NUL; what has one is like nothing we know, and must not fail."""
    return text.replace("\x00", "\ufffd")


def _instant(seconds: object) -> dt.datetime:
    try:
        if isinstance(seconds, int):
            return dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise ValueError("no Unix time")


Text = Annotated[str, AfterValidator(_without_nul)]
Id = Annotated[Text, Field(min_length=1, max_length=255)]
ExpandableId = Annotated[Text | None, BeforeValidator(_id_of)]
Cents = Annotated[int, Field(strict=True)]
UnixTime = Annotated[dt.datetime, BeforeValidator(_instant)]


class EventData(_Wire):
    """`event.data`."""

    object: dict[str, Any]


class Event(_Wire):
    """`event`: something that happened at Stripe."""

    id: Id
    type: Id
    created: UnixTime
    livemode: bool
    api_version: Text | None = None
    data: EventData

    @property
    def object_id(self) -> str | None:
        """The id of the object the event is about."""
        found = self.data.object.get("id")
        return _without_nul(found) if isinstance(found, str) else None


class TotalDetails(_Wire):
    """`checkout.session.total_details`."""

    amount_discount: Cents = 0
    amount_tax: Cents = 0


class CheckoutSession(_Wire):
    """`checkout.session`: a page on which somebody pays, or did."""

    id: Id
    livemode: bool
    mode: Text | None = None
    status: Text | None = None
    payment_status: Text | None = None
    payment_intent: ExpandableId = None
    invoice: ExpandableId = None
    currency: Text | None = None
    amount_subtotal: Cents | None = None
    amount_total: Cents | None = None
    total_details: TotalDetails | None = None
    client_reference_id: Text | None = None
    metadata: dict[str, Text] | None = None
    url: Text | None = None
    created: UnixTime | None = None
    expires_at: UnixTime | None = None

    def as_payment(self) -> Payment:
        """The session in our own terms."""
        totals = self.total_details or TotalDetails()
        return _payment(
            self.metadata,
            stripe_session_id=self.id,
            livemode=self.livemode,
            mode=self.mode,
            payment_status=self.payment_status,
            payment_intent_id=self.payment_intent,
            invoice_id=self.invoice,
            currency=self.currency,
            amount_subtotal_cents=self.amount_subtotal,
            amount_total_cents=self.amount_total,
            discount_cents=totals.amount_discount,
            tax_cents=totals.amount_tax,
            reference_id=_uuid_or_none(self.client_reference_id),
        )


class PaymentIntent(_Wire):
    """`payment_intent`: one payment."""

    id: Id
    livemode: bool
    status: Text | None = None
    amount_received: Cents | None = None
    currency: Text | None = None
    metadata: dict[str, Text] | None = None
    created: UnixTime | None = None

    @property
    def has_succeeded(self) -> bool:
        """Whether the money has arrived."""
        return self.status == "succeeded"

    def as_payment(self, *, invoice_id: str | None = None) -> Payment:
        """A payment without a Checkout Session: of an invoice, or by nobody's page."""
        return _payment(
            self.metadata,
            stripe_session_id=invoice_id or self.id,
            livemode=self.livemode,
            mode="invoice" if invoice_id else "payment",
            payment_status="paid" if self.has_succeeded else "unpaid",
            payment_intent_id=self.id,
            invoice_id=invoice_id,
            currency=self.currency,
            amount_subtotal_cents=self.amount_received,
            amount_total_cents=self.amount_received,
        )


class Invoice(_Wire):
    """`invoice`."""

    id: Id
    livemode: bool
    status: Text | None = None
    currency: Text | None = None
    amount_paid: Cents | None = None
    metadata: dict[str, Text] | None = None

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


class Refund(_Wire):
    """`refund`."""

    id: Id
    amount: Cents
    currency: Text
    status: Text | None = None
    payment_intent: ExpandableId = None
    charge: ExpandableId = None
    metadata: dict[str, Text] | None = None
    created: UnixTime | None = None

    @property
    def request(self) -> str | None:
        """The name of the request of ours that made it, as `Gateway.create_refund` wrote it."""
        return (self.metadata or {}).get("request")

    def as_reversal(self, *, livemode: bool, payment_intent_id: str | None = None) -> Reversal:
        """The refund in our own terms; what is no end of it is on its way."""
        ended = {"succeeded", "failed", "canceled"}
        return Reversal(
            livemode=livemode,
            reversal_id=self.id,
            kind=ReversalKind.REFUND,
            status=self.status if self.status in ended else "pending",
            amount_cents=self.amount,
            currency=self.currency,
            payment_intent_id=self.payment_intent or payment_intent_id,
            request=self.request,
        )


class RefundList(_Wire):
    """`charge.refunds`: the newest ten."""

    data: list[Refund] = []


class Charge(_Wire):
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
    refunds: RefundList | None = None
    """Not told unasked since 2022-11-15."""

    def as_payment_intent(self, payment_intent_id: str) -> PaymentIntent:
        """Its PaymentIntent, as far as the charge tells: metadata and all."""
        taken = self.amount if self.amount_captured is None else self.amount_captured
        return PaymentIntent(
            id=payment_intent_id,
            livemode=self.livemode,
            status="succeeded" if self.paid and self.captured else "requires_capture",
            amount_received=taken,
            currency=self.currency,
            metadata=self.metadata,
        )


class BalanceTransaction(_Wire):
    """`balance_transaction`: money into (+) or out of (-) our Stripe balance."""

    amount: Cents = 0
    currency: Text | None = None
    exchange_rate: Decimal | None = None

    def as_movement(self) -> Movement:
        """The movement in our own terms."""
        return Movement(self.amount, self.currency, self.exchange_rate)


class Dispute(_Wire):
    """`dispute`: a customer's bank wants the money back."""

    id: Id
    livemode: bool
    amount: Cents
    currency: Text
    status: Text | None = None
    payment_intent: ExpandableId = None
    charge: ExpandableId = None
    balance_transactions: list[BalanceTransaction] = []
    created: UnixTime | None = None

    def as_reversal(
        self, *, event_type: str | None = None, payment_intent_id: str | None = None
    ) -> Reversal:
        """The dispute in our own terms: what counts is whether the funds are with the bank."""
        funds = disputed_funds(
            self.amount,
            self.currency,
            status=self.status,
            movements=[each.as_movement() for each in self.balance_transactions],
            told=_FUNDS_BY_EVENT.get(event_type or ""),
        )
        return Reversal(
            livemode=self.livemode,
            reversal_id=self.id,
            kind=ReversalKind.DISPUTE,
            status=funds.status,
            amount_cents=funds.amount_cents,
            moved_cents=funds.moved_cents,
            currency=self.currency,
            payment_intent_id=self.payment_intent or payment_intent_id,
        )


_FUNDS_BY_EVENT = {
    "charge.dispute.funds_withdrawn": "withdrawn",
    "charge.dispute.funds_reinstated": "reinstated",
}


class CreditNoteRefund(_Wire):
    """`credit_note.refunds[]`: a refund that carries part of the note."""

    amount_refunded: Cents = 0


class CreditNote(_Wire):
    """`credit_note`: an invoice is taken back, in part or whole."""

    id: Id
    livemode: bool
    currency: Text
    status: Text | None = None
    invoice: ExpandableId = None
    post_payment_amount: Cents = 0
    """What goes back of what had been paid."""
    refunds: list[CreditNoteRefund] = []

    def as_reversal(self, *, payment_intent_id: str | None) -> Reversal:
        """The note in our own terms: only what no refund carries."""
        carried = sum(each.amount_refunded for each in self.refunds)
        return Reversal(
            livemode=self.livemode,
            reversal_id=self.id,
            kind=ReversalKind.CREDIT_NOTE,
            status="void" if self.status == "void" else "issued",
            amount_cents=max(self.post_payment_amount - carried, 0),
            currency=self.currency,
            payment_intent_id=payment_intent_id,
            invoice_id=self.invoice,
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


def parse_event(body: bytes) -> Event:
    """The event in a verified body.

    Raises:
        BadRequest: WEBHOOK_PAYLOAD_INVALID, this is no event of Stripe's.
    """
    try:
        return Event.model_validate_json(body)
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
