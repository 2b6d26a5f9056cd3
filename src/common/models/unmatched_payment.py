"""Payments that credited nobody, each with its reason, until somebody resolves it."""

from typing import Any

from sqlalchemy import CheckConstraint, Index, String, and_, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, CreatedAt, Instant


class UnmatchedPayment(Base):
    """What Stripe said about a payment that we could not, or must not, credit."""

    __tablename__ = "unmatched_payments"

    livemode: Mapped[bool] = mapped_column(primary_key=True)
    """Whether real money was paid."""
    stripe_object_id: Mapped[str] = mapped_column(String, primary_key=True)
    """`cs_…`: what would be `transactions.stripe_session_id` had it been credited."""
    event_id: Mapped[str] = mapped_column(String)
    """The newest event that said so."""
    reason: Mapped[str] = mapped_column(String)
    """Why nobody was credited: a value of `Reason`, such as `AMOUNT_MISMATCH`."""
    explanation: Mapped[str] = mapped_column(String)
    """One sentence for whoever resolves it."""
    details: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    """What was offered and what was paid, without personal data."""
    status: Mapped[str] = mapped_column(String, default="open", server_default=text("'open'"))
    """`open` or `resolved`."""
    resolution: Mapped[str | None] = mapped_column(String)
    """What was done about it, in words."""
    actor: Mapped[str | None] = mapped_column(String)
    """Who resolved it: `user:`, `key:` or `system:` and an id, never a name."""
    created_at: Mapped[CreatedAt]
    resolved_at: Mapped[Instant | None]

    __table_args__ = (
        CheckConstraint("status IN ('open', 'resolved')", "status"),
        CheckConstraint(
            "(status = 'resolved') = (resolved_at IS NOT NULL)"
            " AND (status = 'resolved') = (resolution IS NOT NULL)"
            " AND (status = 'resolved') = (actor IS NOT NULL)",
            "resolved_says_how",
        ),
        Index("ix_unmatched_payments_open", "created_at", postgresql_where=text("status = 'open'")),
        Index("ix_unmatched_payments_payment_intent_id", text("(details ->> 'payment_intent_id')")),
    )


SYSTEM_ACTOR = "system:webhook"
"""Who closes what later events settle."""
BY_HAND = and_(UnmatchedPayment.status == "resolved", UnmatchedPayment.actor != SYSTEM_ACTOR)
"""Rows that somebody resolved: what they are about is settled."""
PAYMENT_INTENT_ID = UnmatchedPayment.details["payment_intent_id"].astext
"""The PaymentIntent of a payment that was noted by its session or its invoice."""
