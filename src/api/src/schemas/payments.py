"""Bodies of the payment endpoints."""

import uuid

from pydantic import BaseModel, ConfigDict, Field

from src.api.src.schemas.bodies import Body
from src.common.stripe.confirmation import CheckoutStatus


class PackageOut(BaseModel):
    """A package of credits and its price."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)

    package_id: str
    """What `create-checkout-session` takes as `credit_option`."""
    name: str
    """What the pay page calls it."""
    credits: int
    """How many credits it has."""
    price_cents: int
    """In the currency's smallest unit: before discounts, and before taxes that come on top."""
    currency: str
    """ISO 4217, in lower case."""


class PackagesOut(BaseModel):
    """What is on sale."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)

    packages: list[PackageOut]
    """In the order of `CREDIT_PACKAGES`."""


class CheckoutIn(Body):
    """The package to buy, and where the customer returns to."""

    credit_option: str = Field(max_length=100, examples=["500"])
    """The package: a `package_id` of `GET /packages`."""
    success_url: str | None = Field(default=None, max_length=2_000)
    """Where the customer goes after paying. The origin is that of `CHECKOUT_SUCCESS_URL`, or one of
    `CHECKOUT_ALLOWED_ORIGINS`. Left out: `CHECKOUT_SUCCESS_URL`.
    """
    cancel_url: str | None = Field(default=None, max_length=2_000)
    """The same for a customer who leaves without paying; left out: `CHECKOUT_CANCEL_URL`."""


class CheckoutOut(BaseModel):
    """The order and its pay page."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    url: str
    """Stripe's pay page: send the customer there."""
    order_id: uuid.UUID
    """Our number of the order."""


class ConfirmOut(BaseModel):
    """What became of a Checkout Session."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    status: CheckoutStatus
    """`pending`: not paid yet. `unmatched`: paid, and nobody was credited. `failed`: a delayed
    payment failed, and nothing was paid.
    """


class RefundIn(Body):
    """How much is paid back, and why."""

    amount_cents: int | None = Field(default=None, gt=0, lt=2**31, strict=True)
    """In the currency's smallest unit. Left out: all that is left of the payment."""
    reason: str | None = Field(default=None, min_length=1, max_length=255)
    """Yours, kept with the refund."""


class RefundOut(BaseModel):
    """A refund that Stripe accepted."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)

    refund_id: str
    """Stripe's id of it, `re_…`."""
    amount_cents: int
    """What is paid back, in the currency's smallest unit."""
