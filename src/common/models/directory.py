"""The directory: whose schema is which, and what has to be unique over all groups (decision 0066).

Whoever writes a user, a purchase or an order of a group writes it here in the same database
transaction. The tables are in `public`; empty where `SHARDING` is `none`.
"""

import uuid

from sqlalchemy import CheckConstraint, ForeignKey, String, UniqueConstraint, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base
from src.common.models.user_group import UserGroup


class DirectoryUser(Base):
    """One user, and the schema that has this user's tables, which never changes by itself."""

    __tablename__ = "users_directory"

    user_id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    schema: Mapped[str] = mapped_column(ForeignKey(UserGroup.schema), index=True)
    email_lower: Mapped[str] = mapped_column(String, unique=True)
    """As PostgreSQL's `lower` has it."""
    stripe_customer_id: Mapped[str | None] = mapped_column(String, unique=True)

    # What a group's users refer to: they are where the directory says.
    __table_args__ = (UniqueConstraint("user_id", "schema"),)


class DirectoryPayment(Base):
    """One object of Stripe's that a purchase or an order names, and whose it is."""

    __tablename__ = "payments_directory"

    object_id: Mapped[str] = mapped_column(String, primary_key=True)
    """`cs_…`, `pi_…` or `in_…`."""
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey(DirectoryUser.user_id), index=True)

    __table_args__ = (CheckConstraint("object_id <> ''", "object_id_not_empty"),)
