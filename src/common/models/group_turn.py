"""When each kind of the worker's work last began with each group of users (decision 0066)."""

from sqlalchemy import ForeignKey, String, func
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, Instant
from src.common.models.user_group import UserGroup


class GroupTurn(Base):
    """One kind of work at one group; no row before the first time."""

    __tablename__ = "group_turns"

    work: Mapped[str] = mapped_column(String, primary_key=True)
    """As the worker calls it."""
    schema: Mapped[str] = mapped_column(ForeignKey(UserGroup.schema), primary_key=True)
    began_at: Mapped[Instant] = mapped_column(server_default=func.clock_timestamp())
    """Noted before it begins: what ends its process is no reason to begin there again."""
