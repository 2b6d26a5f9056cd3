"""Users whose expiries cannot be booked, and why."""

import uuid

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, CreatedAt, Instant


class CreditBookingFailure(Base):
    """A user whom the worker could not book. Such users are tried apart from the others.

    It tells of the user as long as `credits_version` is still the user's: every entry raises that,
    so whoever was booked since, by anybody, is no longer counted.
    """

    __tablename__ = "credit_booking_failures"

    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.user_id"), primary_key=True)
    credits_version: Mapped[int] = mapped_column(Integer)
    """The user's `credits_version` when it last failed."""
    error_type: Mapped[str] = mapped_column(String)
    """What the last attempt failed with."""
    message: Mapped[str] = mapped_column(String)
    """Without anybody's data but ids."""
    attempts: Mapped[int] = mapped_column(Integer)
    """How often it was tried, 1 or more."""
    first_failed_at: Mapped[CreatedAt]
    last_failed_at: Mapped[CreatedAt]
    next_attempt_at: Mapped[Instant]
    """When the worker tries again; later each time."""

    __table_args__ = (
        CheckConstraint("attempts > 0", "attempts_positive"),
        Index("ix_credit_booking_failures_next_attempt_at", "next_attempt_at"),
    )
