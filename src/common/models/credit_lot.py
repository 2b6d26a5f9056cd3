"""Lots: every credit in a balance lies in one, with a priority and perhaps an expiry."""

import uuid
from enum import StrEnum

from sqlalchemy import (
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    Integer,
    SmallInteger,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, Instant, text_array


class LotSource(StrEnum):
    """Why a lot exists."""

    PURCHASE = "purchase"
    PROMO = "promo"
    SUBSCRIPTION = "subscription"
    ADJUSTMENT = "adjustment"
    OPENING = "opening"

    __hash__ = str.__hash__  # an enumeration's own takes ten times as long


_PAID_SOURCES = text_array((LotSource.PURCHASE, LotSource.OPENING))


class CreditLot(Base):
    """Credits that came in together, with their own priority and expiry."""

    __tablename__ = "credit_lots"

    user_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """The `seq` of the entry that made it."""
    source: Mapped[str] = mapped_column(String)
    """Why it exists: a value of `LotSource`."""
    transaction_id: Mapped[uuid.UUID | None]
    """The purchase that paid for it."""
    priority: Mapped[int] = mapped_column(SmallInteger)
    """Lower numbers are spent first."""
    granted: Mapped[int] = mapped_column(Integer)
    """Whole credits that came in; positive."""
    expires_at: Mapped[Instant | None]
    """From this instant on the credits count no longer."""
    remaining: Mapped[int] = mapped_column(Integer)
    """Credits that are left, 0 to `granted`."""
    last_seq: Mapped[int] = mapped_column(Integer)
    """The entry of the lot's newest posting, whose `remaining_after` is `remaining`."""
    is_open: Mapped[bool]
    """Whether anything is left. Indexed in place of `remaining`, whose every change would cost the
    row its heap-only update."""

    __table_args__ = (
        ForeignKeyConstraint(["user_id", "seq"], ["credit_entries.user_id", "credit_entries.seq"]),
        UniqueConstraint("user_id", "transaction_id"),
        CheckConstraint(f"source = ANY ({text_array(LotSource)})", "source"),
        CheckConstraint("granted > 0", "granted_positive"),
        CheckConstraint("remaining BETWEEN 0 AND granted", "remaining_within_granted"),
        CheckConstraint("is_open = (remaining > 0)", "open_while_anything_remains"),
        CheckConstraint("last_seq >= seq", "last_seq_not_before_seq"),
        CheckConstraint(
            f"transaction_id IS NULL OR source = ANY ({_PAID_SOURCES})",
            "only_purchases_have_transactions",
        ),
        Index(
            "ix_credit_lots_burn_order",
            "user_id",
            "priority",
            text("expires_at NULLS LAST"),
            "seq",
            postgresql_where=text("is_open"),
        ),
        Index(
            "ix_credit_lots_due",
            "expires_at",
            postgresql_where=text("is_open AND expires_at IS NOT NULL"),
        ),
    )
