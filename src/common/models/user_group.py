"""A group of users, whose tables are in a schema of that name (decision 0066)."""

from sqlalchemy import CheckConstraint, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, CreatedAt, Instant


class UserGroup(Base):
    """One group that is ready; none where `SHARDING` is `none`."""

    __tablename__ = "user_groups"

    schema: Mapped[str] = mapped_column(String, primary_key=True)
    is_open: Mapped[bool] = mapped_column(default=True, server_default=text("true"))
    """Whether newcomers may come here."""
    users_count: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """How many users it had at `counted_at`: for whoever chooses a group, at most a minute old."""
    counted_at: Mapped[Instant | None]
    created_at: Mapped[CreatedAt]

    __table_args__ = (
        CheckConstraint("schema ~ '^g[0-9]{4,9}$'", "schema_of_a_group"),
        CheckConstraint("users_count >= 0", "users_count_not_negative"),
    )
