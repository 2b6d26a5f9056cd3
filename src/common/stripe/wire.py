"""What we read of Stripe's objects, and nothing else; everything more is kept in the raw body.

Shapes: Stripe's API reference, "The Event object" and "The Checkout Session object".
"""

import datetime as dt
import uuid
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from src.common.exceptions import BadRequest
from src.common.purchases.rules import CheckoutPayment


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


class CheckoutSession(_Wire):
    """`checkout.session`: a page on which somebody pays, or did."""

    id: Id
    livemode: bool
    mode: Text | None = None
    payment_status: Text | None = None
    payment_intent: ExpandableId = None
    currency: Text | None = None
    amount_subtotal: int | None = Field(default=None, strict=True)
    amount_total: int | None = Field(default=None, strict=True)
    metadata: dict[str, Text] | None = None

    def as_payment(self) -> CheckoutPayment:
        """The session in our own terms."""
        metadata = self.metadata or {}
        return CheckoutPayment(
            stripe_session_id=self.id,
            livemode=self.livemode,
            mode=self.mode,
            payment_status=self.payment_status,
            payment_intent_id=self.payment_intent,
            currency=self.currency,
            amount_subtotal_cents=self.amount_subtotal,
            amount_total_cents=self.amount_total,
            env=metadata.get("env"),
            user_id=_uuid_or_none(metadata.get("user_id")),
            package_id=metadata.get("package_id"),
            credits=metadata.get("credits"),
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
