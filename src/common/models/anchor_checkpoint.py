"""The checkpoints that were closed: which ones sinks are to have, and nothing that they prove."""

from sqlalchemy import CheckConstraint, Integer, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, Instant


class AnchorCheckpoint(Base):
    """One signed checkpoint over all users (decision 0062)."""

    __tablename__ = "anchor_checkpoints"

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """1, 2, 3 … without a gap: whoever writes it first has closed that checkpoint."""
    note: Mapped[str] = mapped_column(String)
    """The signed text."""
    checkpoint_hash: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 over the text without signatures: what the next one names it by."""
    is_complete: Mapped[bool]
    """Whether every user's leaf came with it, and not only changed ones."""
    closed_at: Mapped[Instant]
    """When its snapshot was taken."""

    __table_args__ = (
        CheckConstraint("number >= 1", "number_positive"),
        CheckConstraint("octet_length(checkpoint_hash) = 32", "hash_length"),
    )
