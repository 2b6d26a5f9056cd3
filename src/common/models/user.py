"""A person who buys and spends credits (document, "User Model")."""

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    Enum,
    Index,
    Integer,
    String,
    event,
    func,
    null,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from src.common.models.base import PRIVATE, Base, CreatedAt, Instant, UuidPrimaryKey
from src.common.models.booked_columns import BookedBalance, KeptVersion, note_unflushed
from src.common.models.preferences import Preferences, begin_empty, read_null_as_empty
from src.common.models.user_search import INDEXED, IX_USERS_SEARCH, create_before_users

if TYPE_CHECKING:
    from src.common.models.transaction import Transaction

MANAGED_EXTERNALLY = "managed_externally"
"""The password hash of a user whose password another system keeps."""

EMAIL_LENGTH_MAX = 320
_PLAUSIBLE_EMAIL = re.compile(r"[^@\s\x00]+@[^@\s\x00]+")

UQ_USERS_EMAIL = "ix_users_email"
UQ_USERS_EMAIL_LOWER = "uq_users_email_lower"
UQ_DIRECTORY_EMAIL = "uq_users_directory_email_lower"
EMAIL_CONSTRAINTS = frozenset({UQ_USERS_EMAIL, UQ_USERS_EMAIL_LOWER, UQ_DIRECTORY_EMAIL})
CK_USERS_CREDITS_BALANCE = "ck_users_credits_balance_not_negative"


class UserType(StrEnum):
    """What a user is; `admin` reaches every user and has every scope."""

    ADMIN = "admin"
    MEMBER = "member"
    GUEST = "guest"
    INDIVIDUAL = "individual"


def is_plausible_email(email: str) -> bool:
    """Whether this could be an address; only a message that arrives proves one."""
    return len(email) <= EMAIL_LENGTH_MAX and _PLAUSIBLE_EMAIL.fullmatch(email) is not None


class User(Base):
    """One account. Users are erased, never deleted (rule 11)."""

    __tablename__ = "users"

    # Identity
    user_id: Mapped[UuidPrimaryKey]
    email: Mapped[str] = mapped_column(String, unique=True, index=True)
    """As the person writes it; unique without regard to case."""
    password_hash: Mapped[str] = mapped_column(String, info=PRIVATE)
    """`managed_externally` where another system signs people in; in no response, log or repr."""

    # Profile
    first_name: Mapped[str | None] = mapped_column(String)
    last_name: Mapped[str | None] = mapped_column(String)
    profile_image_url: Mapped[str | None] = mapped_column(String)
    phone: Mapped[str | None] = mapped_column(String)

    # Billing
    stripe_customer_id: Mapped[str | None] = mapped_column(String, unique=True, index=True)
    """`cus_…`, once the user was offered a pay page."""
    credits_balance: Mapped[int] = BookedBalance(
        Column(Integer, nullable=False, default=0, server_default=text("0")), active_history=True
    )
    """Whole credits the user may spend, as booked; never negative. Assigning it means the
    difference to what was loaded, which the ledger books (`credits/assigned_balances.py`)."""
    credits_version: Mapped[int] = KeptVersion(
        Column(Integer, nullable=False, default=0, server_default=text("0")), active_history=True
    )
    """The `seq` of the user's newest ledger entry; 0 before the first. The ledger's to write:
    what else is assigned is put back."""

    # Preferences
    preferences: Mapped[dict[str, Any]] = mapped_column(
        Preferences, nullable=True, default=dict, server_default=text("'{}'::jsonb")
    )
    """`{"company": "…", "marketing_consent": true, …}`. NULL means the same as `{}` and reads so;
    assigning None stores it."""

    # Settings
    timezone: Mapped[str | None] = mapped_column(String)
    language_preference: Mapped[str | None] = mapped_column(String)
    user_type: Mapped[str] = mapped_column(
        Enum(
            *map(str, UserType), name="user_type"
        ),  # the document's is anonymous; PostgreSQL wants a name
        default="individual",
        server_default=text("'individual'"),
    )
    """A value of `UserType`."""

    # Status and timestamps
    is_active: Mapped[bool] = mapped_column(default=True, server_default=text("true"))
    """A user who is deactivated cannot sign in, spend or open holds; credits stay."""
    last_login_at: Mapped[Instant | None]
    created_at: Mapped[CreatedAt]
    # The explicit NULL comes back with the INSERT; without it a second SELECT would fetch it.
    updated_at: Mapped[Instant | None] = mapped_column(default=null(), onupdate=func.now())
    erased_at: Mapped[Instant | None]
    """When the person's data was erased; the row and its ledger stay."""

    transactions: Mapped[list["Transaction"]] = relationship(back_populates="user")

    __table_args__ = (
        Index(UQ_USERS_EMAIL_LOWER, func.lower(email), unique=True),
        Index("ix_users_preferences", preferences, postgresql_using="gin"),
        Index("ix_users_company", text("(preferences ->> 'company')")),
        Index(IX_USERS_SEARCH, text(INDEXED), postgresql_using="gin"),
        Index("ix_users_created_at", text("created_at DESC"), text("user_id DESC")),
        Index(
            "ix_users_inactive",
            text("created_at DESC"),
            text("user_id DESC"),
            postgresql_where=text("NOT is_active"),
        ),
        CheckConstraint("credits_balance >= 0", "credits_balance_not_negative"),
        CheckConstraint("credits_version >= 0", "credits_version_not_negative"),
        CheckConstraint("position('@' in email) > 1", "email_has_at_sign"),
        CheckConstraint(f"length(email) <= {EMAIL_LENGTH_MAX}", "email_length"),
        CheckConstraint("password_hash <> ''", "password_hash_not_empty"),
        CheckConstraint("jsonb_typeof(preferences) = 'object'", "preferences_is_object"),
        # A longer one would not fit its index, and fail with an error nobody expects.
        CheckConstraint("length(preferences ->> 'company') <= 500", "company_length"),
        CheckConstraint("erased_at IS NULL OR NOT is_active", "erased_is_inactive"),
    )


create_before_users(User.__table__)  # type: ignore[arg-type]
event.listen(User, "pickle", note_unflushed, propagate=True)
event.listen(User.preferences, "init_scalar", begin_empty, retval=True, propagate=True)
event.listen(User, "load", read_null_as_empty, propagate=True)
event.listen(User, "refresh", read_null_as_empty, propagate=True)
