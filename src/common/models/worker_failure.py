"""Unexpected failures of the worker, by kind of work: how many, and the last."""

from sqlalchemy import BigInteger, CheckConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, CreatedAt


class WorkerFailure(Base):
    """Failures of one kind of work, of all workers together. Never reset."""

    __tablename__ = "worker_failures"

    work: Mapped[str] = mapped_column(String, primary_key=True)
    """`bookings`, `verification` …"""
    failures: Mapped[int] = mapped_column(BigInteger)
    """How often it failed since it was first counted."""
    error_type: Mapped[str] = mapped_column(String)
    """What it failed with the last time."""
    message: Mapped[str] = mapped_column(String)
    """Without anybody's data but ids."""
    first_failed_at: Mapped[CreatedAt]
    last_failed_at: Mapped[CreatedAt]

    __table_args__ = (CheckConstraint("failures > 0", "failures_positive"),)
