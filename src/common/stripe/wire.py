"""What we read of Stripe's objects, and nothing else; everything more is kept in the raw body.

Shapes: Stripe's API reference, "The Event object" and "The Checkout Session object".
"""

import datetime as dt
import uuid
from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from src.common.exceptions import BadRequest
from src.common.purchases.rules import CheckoutPayment


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


def _id_of(value: object) -> object:
    """An object's id, whether Stripe sent the id or, expanded, the object."""
    return cast("dict[str, object]", value).get("id") if isinstance(value, dict) else value


ExpandableId = Annotated[str | None, BeforeValidator(_id_of)]


class EventData(_Wire):
    """`event.data`."""

    object: dict[str, Any]


class Event(_Wire):
    """`event`: something that happened at Stripe."""

    id: str = Field(min_length=1, max_length=255)
    type: str = Field(min_length=1, max_length=255)
    created: dt.datetime
    livemode: bool
    api_version: str | None = None
    data: EventData

    @property
    def object_id(self) -> str | None:
        """The id of the object the event is about."""
        found = self.data.object.get("id")
        return found if isinstance(found, str) else None


class CheckoutSession(_Wire):
    """`checkout.session`: a page on which somebody pays, or did."""

    id: str = Field(min_length=1, max_length=255)
    livemode: bool
    mode: str | None = None
    payment_status: str | None = None
    payment_intent: ExpandableId = None
    currency: str | None = None
    amount_subtotal: int | None = Field(default=None, strict=True)
    amount_total: int | None = Field(default=None, strict=True)
    metadata: dict[str, str] | None = None

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
