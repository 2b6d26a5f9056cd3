"""What is known of each sink: how far it is, and what is wrong with it."""

from enum import StrEnum

from sqlalchemy import CheckConstraint, Integer, String, func, text
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, Instant, text_array


class SinkProblem(StrEnum):
    """Why nothing is appended to a sink."""

    UNAVAILABLE = "unavailable"
    """It does not answer, or refuses; it is tried again."""
    SHORTENED = "shortened"
    """It has fewer checkpoints than it had."""
    UNKNOWN_CHECKPOINT = "unknown_checkpoint"
    """It has one that this database does not know: the database was set back, or is another."""
    GAP = "gap"
    """The leaves that it needs next are no longer kept."""


class AnchorSink(Base):
    """One sink."""

    __tablename__ = "anchor_sinks"

    sink: Mapped[str] = mapped_column(String, primary_key=True)
    """Its address, without anything secret."""
    number: Mapped[int | None]
    """The newest checkpoint that it is known to have; NULL before the first."""
    looked_at: Mapped[Instant] = mapped_column(server_default=func.now())
    """When it was last looked at, or was to be."""
    problem: Mapped[str | None]
    """As `SinkProblem`; NULL where there is none."""
    explanation: Mapped[str | None]
    """The problem in a sentence."""
    failures: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    """How often it has been unavailable, one time after the other."""
    next_attempt_at: Mapped[Instant] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint("number >= 1", "number_positive"),
        CheckConstraint("failures >= 0", "failures_not_negative"),
        CheckConstraint(f"problem = ANY ({text_array(SinkProblem)})", "problem"),
        CheckConstraint("(problem IS NULL) = (explanation IS NULL)", "problem_is_explained"),
    )
