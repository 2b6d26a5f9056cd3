"""Orders: what was offered to whom at which price, written before Stripe is asked."""

import uuid
from enum import StrEnum

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, CreatedAt, Instant, UuidPrimaryKey


class OrderStatus(StrEnum):
    """How far an order has come. It only moves down this list; `paid` is final."""

    CREATED = "created"
    """Written down; Stripe has not been asked yet, or its answer was lost."""
    OPEN = "open"
    """There is a pay page."""
    PROCESSING = "processing"
    """The customer is done; a delayed payment method is not."""
    FAILED = "failed"
    EXPIRED = "expired"
    PAID = "paid"


class CheckoutOrder(Base):
    """One offer of one package to one user, with the price and terms of that moment."""

    __tablename__ = "checkout_orders"

    order_id: Mapped[UuidPrimaryKey]
    """Stripe carries it in the metadata, so that it finds its way back whatever we remember; and as
    `client_reference_id`, for people."""
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.user_id"))
    """Who buys."""
    idempotency_key: Mapped[str] = mapped_column(String)
    """The caller's, unique for this user's orders."""
    request_digest: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of what was asked: the same key with another request is refused."""
    package_id: Mapped[str] = mapped_column(String)
    """What was offered: a `package_id` of the settings of then."""
    credits: Mapped[int] = mapped_column(Integer)
    """Whole credits the package has; positive."""
    amount_cents: Mapped[int] = mapped_column(Integer)
    """The price before discounts and taxes, in the currency's smallest unit."""
    currency: Mapped[str] = mapped_column(String)
    """ISO 4217 in lower case."""
    livemode: Mapped[bool]
    """Whether real money is paid."""
    allows_discount: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Whether promotion codes may lower the price."""
    allows_tax: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Whether taxes may come on top of the price."""
    success_url: Mapped[str] = mapped_column(String)
    """Where Stripe sends a customer who has paid."""
    cancel_url: Mapped[str] = mapped_column(String)
    """Where it sends one who turns back."""
    stripe_session_id: Mapped[str | None] = mapped_column(String, unique=True)
    """`cs_…`, once Stripe has answered."""
    url: Mapped[str | None] = mapped_column(String)
    """The pay page."""
    status: Mapped[str] = mapped_column(String, default="created", server_default=text("'created'"))
    """How far it has come: a value of `OrderStatus`."""
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[Instant | None]
    """When the pay page closes."""

    __table_args__ = (
        UniqueConstraint("user_id", "idempotency_key"),
        CheckConstraint(
            f"status IN ({', '.join(repr(str(status)) for status in OrderStatus)})", "status"
        ),
        CheckConstraint("credits > 0", "credits_positive"),
        CheckConstraint("amount_cents >= 0", "amount_cents_not_negative"),
        CheckConstraint("currency ~ '^[a-z]{3}$'", "currency_is_iso_4217"),
        CheckConstraint("length(idempotency_key) BETWEEN 1 AND 255", "key_length"),
        CheckConstraint("octet_length(request_digest) = 32", "digest_is_sha256"),
        CheckConstraint("url IS NULL OR stripe_session_id IS NOT NULL", "url_has_session"),
        # Orders that reconciliation still has to hear about.
        Index(
            "ix_checkout_orders_unfinished",
            "created_at",
            postgresql_where=text("status IN ('created', 'open', 'processing')"),
        ),
    )
