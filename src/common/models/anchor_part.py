"""Leaves that came with a checkpoint, until every sink has them."""

from sqlalchemy import CheckConstraint, ForeignKey, Integer, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.anchor_checkpoint import AnchorCheckpoint
from src.common.models.base import Base

LEAF_OCTETS = 56


class AnchorPart(Base):
    """Some leaves, one after the other; a checkpoint's parts are in the order of user ids."""

    __tablename__ = "anchor_parts"

    number: Mapped[int] = mapped_column(
        ForeignKey(AnchorCheckpoint.number), primary_key=True, autoincrement=False
    )
    part: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """0, 1, 2 …"""
    leaves: Mapped[bytes] = mapped_column(LargeBinary)

    __table_args__ = (
        CheckConstraint(
            f"octet_length(leaves) > 0 AND octet_length(leaves) % {LEAF_OCTETS} = 0",
            "whole_leaves",
        ),
    )
