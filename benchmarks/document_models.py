"""The document's two models, word for word, on a declarative base of their own: no ledger.

`User`'s enumeration alone has a name, which PostgreSQL wants.
"""

import uuid

from sqlalchemy import Boolean, Column, DateTime, Enum, ForeignKey, Integer, String, func
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.orm import DeclarativeBase, relationship


class Base(DeclarativeBase):
    """The document's `declarative_base()`, as SQLAlchemy 2 has it."""


class User(Base):
    """As in "User Model"."""

    __tablename__ = "users"

    # Identity
    user_id = Column(UUID(as_uuid=True), primary_key=True, default=uuid.uuid4)
    email = Column(String, unique=True, nullable=False, index=True)
    password_hash = Column(String, nullable=False)

    # Profile
    first_name = Column(String, nullable=True)
    last_name = Column(String, nullable=True)
    profile_image_url = Column(String, nullable=True)
    phone = Column(String, nullable=True)

    # Billing
    stripe_customer_id = Column(String, unique=True, nullable=True, index=True)
    credits_balance = Column(Integer, default=0, nullable=False)

    # Preferences
    preferences = Column(JSONB, nullable=True)

    # Settings
    timezone = Column(String, nullable=True)
    language_preference = Column(String, nullable=True)
    user_type: Column[str] = Column(
        Enum("admin", "member", "guest", "individual", name="user_type"), default="individual"
    )

    # Status & Timestamps
    is_active = Column(Boolean, default=True)
    last_login_at = Column(DateTime(timezone=True), nullable=True)
    created_at = Column(DateTime(timezone=True), server_default=func.now())
    updated_at = Column(DateTime(timezone=True), onupdate=func.now())


class Transaction(Base):
    """As in "Transaction Model"."""

    __tablename__ = "transactions"

    transaction_id = Column(UUID(as_uuid=True), primary_key=True, default=uuid.uuid4)
    user_id = Column(UUID(as_uuid=True), ForeignKey("users.user_id"), nullable=False, index=True)
    stripe_session_id = Column(String, unique=True, nullable=False)
    amount_paid_cents = Column(Integer, nullable=False)
    credits_added = Column(Integer, nullable=False)
    created_at = Column(DateTime(timezone=True), server_default=func.now())

    user = relationship("User", backref="transactions")
