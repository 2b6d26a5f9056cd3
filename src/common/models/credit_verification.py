"""How far the worker has come in verifying everybody's books."""

import uuid

from sqlalchemy import CheckConstraint, Integer, SmallInteger, Uuid, func, text
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, CreatedAt, Instant

START = uuid.UUID(int=0)
"""Where a pass begins."""


class CreditVerification(Base):
    """One row: the current pass over all users and the last complete one. Workers take turns.

    Users count as differing when any row of their books does; mended ones until the pass ends.
    """

    __tablename__ = "credit_verifications"

    verification_id: Mapped[int] = mapped_column(
        SmallInteger, primary_key=True, autoincrement=False, server_default=text("1")
    )
    """Always 1: there is one row."""
    cursor: Mapped[uuid.UUID] = mapped_column(
        Uuid, default=START, server_default=text(f"'{START}'::uuid")
    )
    """The lowest user_id not yet verified in this pass."""
    users: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """Verified in this pass so far."""
    differing_users: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """Of these, those whose rows differ."""
    started_at: Mapped[CreatedAt]
    """When this pass began."""
    next_slice_at: Mapped[Instant] = mapped_column(server_default=func.now())
    """When the next slice of users is due."""
    last_pass_users: Mapped[int | None]
    """Verified in the last whole pass; NULL before the first ended."""
    last_pass_differing_users: Mapped[int | None]
    """Of these, those whose rows differed."""
    last_pass_ended_at: Mapped[Instant | None]
    """When the last whole pass ended."""

    __table_args__ = (
        CheckConstraint("verification_id = 1", "one_row"),
        CheckConstraint("users >= 0 AND differing_users >= 0", "counts_not_negative"),
        CheckConstraint(
            "(last_pass_ended_at IS NULL) = (last_pass_users IS NULL)"
            " AND (last_pass_ended_at IS NULL) = (last_pass_differing_users IS NULL)",
            "ended_says_what_it_found",
        ),
    )
