"""Whose turn it is to close checkpoints and bring them to sinks: one worker's at a time."""

import uuid

from sqlalchemy import CheckConstraint, SmallInteger, func, text
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, Instant


class AnchorTurn(Base):
    """One row. A turn that is not given back ends by itself."""

    __tablename__ = "anchor_turns"

    turn_id: Mapped[int] = mapped_column(
        SmallInteger, primary_key=True, autoincrement=False, server_default=text("1")
    )
    """Always 1: there is one row."""
    holder: Mapped[uuid.UUID | None]
    """Whoever has it; NULL where nobody does."""
    expires_at: Mapped[Instant] = mapped_column(server_default=func.now())
    """When it ends, unless it is renewed."""
    attempted_at: Mapped[Instant | None]
    """When a checkpoint was last tried, whatever came of it."""
    was_blocked: Mapped[bool] = mapped_column(server_default=text("false"))
    """Whether a sink was in its way: then it is tried again soon."""
    contradiction: Mapped[str | None]
    """Why none is closed: what the entries say is not what was anchored. NULL where they fit."""

    __table_args__ = (CheckConstraint("turn_id = 1", "one_row"),)
