"""Bodies of the payment endpoints."""

import uuid

from pydantic import BaseModel, ConfigDict, Field


class CheckoutIn(BaseModel):
    """What somebody wants to buy."""

    model_config = ConfigDict(extra="forbid")

    credit_option: str = Field(max_length=100, examples=["500"])
    """The package."""
    success_url: str | None = Field(default=None, max_length=2_000)
    """Where to go after paying; of an allowed origin."""
    cancel_url: str | None = Field(default=None, max_length=2_000)


class CheckoutOut(BaseModel):
    """Where to pay."""

    url: str
    order_id: uuid.UUID
