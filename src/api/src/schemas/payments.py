"""Bodies of the payment endpoints."""

import uuid

from pydantic import BaseModel, ConfigDict, Field

from src.api.src.schemas.bodies import Body
from src.common.stripe.confirmation import CheckoutStatus


class PackageOut(BaseModel):
    """So many credits for so much."""

    model_config = ConfigDict(from_attributes=True)

    package_id: str
    """What `create-checkout-session` takes as `credit_option`."""
    name: str
    credits: int
    price_cents: int
    """In the currency's smallest unit, before discounts, and taxes where those come on top."""
    currency: str


class PackagesOut(BaseModel):
    """What is on sale, in the order of the settings."""

    model_config = ConfigDict(from_attributes=True)

    packages: list[PackageOut]


class CheckoutIn(Body):
    """What somebody wants to buy."""

    credit_option: str = Field(max_length=100, examples=["500"])
    """The package: a `package_id` of `GET /packages`."""
    success_url: str | None = Field(default=None, max_length=2_000)
    """Where to go after paying; of an allowed origin."""
    cancel_url: str | None = Field(default=None, max_length=2_000)


class CheckoutOut(BaseModel):
    """Where to pay."""

    url: str
    order_id: uuid.UUID


class ConfirmOut(BaseModel):
    """What became of a Checkout Session."""

    status: CheckoutStatus


class RefundIn(Body):
    """What is to be paid back."""

    amount_cents: int | None = Field(default=None, gt=0, lt=2**31, strict=True)
    """Left out, all that is left of the payment."""
    reason: str | None = Field(default=None, min_length=1, max_length=255)


class RefundOut(BaseModel):
    """A refund that Stripe accepted."""

    model_config = ConfigDict(from_attributes=True)

    refund_id: str
    amount_cents: int
