"""Runs of the comparison with Stripe: how far each has come, and what it found."""

from typing import Any

from sqlalchemy import CheckConstraint, Index, Integer, String, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, CreatedAt, Instant, UuidPrimaryKey

RECONCILIATION_STATUSES = ("running", "finished")


class Reconciliation(Base):
    """One comparison of Stripe's objects in a window of time. It can resume after each page."""

    __tablename__ = "reconciliations"

    reconciliation_id: Mapped[UuidPrimaryKey]
    livemode: Mapped[bool]
    """Which of Stripe's modes is compared."""
    stripe_account: Mapped[str | None] = mapped_column(String)
    """`acct_…` of the connected account that is compared; NULL where it is our own."""
    since_at: Mapped[Instant]
    """Objects made at Stripe from here on …"""
    until_at: Mapped[Instant]
    """… to here are compared."""
    repairs: Mapped[bool]
    """Whether what differs is mended too."""
    status: Mapped[str] = mapped_column(String, default="running", server_default=text("'running'"))
    """`running` or `finished`."""
    stage: Mapped[str] = mapped_column(String)
    """Which kind of object is being compared."""
    cursor: Mapped[str | None] = mapped_column(String)
    """The last object of that stage that has been compared; NULL before the first."""
    compared: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """How many objects have been compared."""
    drift: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """How many differences are left, without those that were repaired."""
    findings: Mapped[list[dict[str, Any]]] = mapped_column(
        JSONB, default=list, server_default=text("'[]'::jsonb")
    )
    """The first differences: what differs, which object, whether it was repaired."""
    lease_expires_at: Mapped[Instant | None]
    """Until when one process holds the run. Others leave it alone until then."""
    started_at: Mapped[CreatedAt]
    finished_at: Mapped[Instant | None]
    """NULL while it runs."""

    __table_args__ = (
        CheckConstraint(f"status IN ({', '.join(map(repr, RECONCILIATION_STATUSES))})", "status"),
        CheckConstraint("since_at < until_at", "window_not_empty"),
        CheckConstraint("compared >= 0 AND drift >= 0", "counts_not_negative"),
        CheckConstraint("(status = 'finished') = (finished_at IS NOT NULL)", "finished_says_when"),
        Index("ix_reconciliations_started_at", "started_at"),
    )
