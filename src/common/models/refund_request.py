"""Refunds asked for through us, written down before Stripe is asked."""

import uuid

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, CreatedAt

REFUND_REQUEST_STATUSES = ("requested", "accepted", "refused")


class RefundRequest(Base):
    """A request to pay money back, with its key. The refund itself is in `stripe_reversals`."""

    __tablename__ = "refund_requests"

    transaction_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("transactions.transaction_id"), primary_key=True
    )
    """The purchase that is paid back."""
    idempotency_key: Mapped[str] = mapped_column(String, primary_key=True)
    """The caller's, unique for this purchase's refunds."""
    request_digest: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of what was asked: the same key with another request is refused."""
    amount_cents: Mapped[int] = mapped_column(Integer)
    """How much, in the smallest unit of the purchase's currency; positive."""
    reason: Mapped[str | None] = mapped_column(String)
    """Why, as whoever asked says."""
    actor: Mapped[str] = mapped_column(String)
    """Who asked: `user:`, `key:` or `system:` and an id, never a name."""
    status: Mapped[str] = mapped_column(
        String, default="requested", server_default=text("'requested'")
    )
    """`requested` until Stripe has answered: asking again with the same key is safe. Then
    `accepted` or `refused`.
    """
    refund_id: Mapped[str | None] = mapped_column(String)
    """`re_…`, once Stripe accepted."""
    error: Mapped[str | None] = mapped_column(String)
    """Why Stripe refused."""
    created_at: Mapped[CreatedAt]

    __table_args__ = (
        CheckConstraint(f"status IN ({', '.join(map(repr, REFUND_REQUEST_STATUSES))})", "status"),
        CheckConstraint("amount_cents > 0", "amount_cents_positive"),
        CheckConstraint("length(idempotency_key) BETWEEN 1 AND 255", "key_length"),
        CheckConstraint("octet_length(request_digest) = 32", "digest_is_sha256"),
        CheckConstraint("(status = 'accepted') = (refund_id IS NOT NULL)", "accepted_has_refund"),
        CheckConstraint("(status = 'refused') = (error IS NOT NULL)", "refused_says_why"),
        Index(
            "ix_refund_requests_open",
            "created_at",
            "idempotency_key",
            postgresql_where=text("status = 'requested'"),
        ),
    )
