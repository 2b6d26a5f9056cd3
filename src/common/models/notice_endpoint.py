"""Whom notices are for: endpoints, what each wants to be told, and the secrets that sign it."""

import uuid

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Integer,
    LargeBinary,
    String,
    Text,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import PRIVATE, Base, CreatedAt, Instant, UuidPrimaryKey, text_array
from src.common.models.credit_notice import NoticeType

URL_LENGTH_MAX = 2_000
EXPIRING_LEAD_SECONDS_MAX = 366 * 86_400


class NoticeEndpoint(Base):
    """One address that is told what happens.

    Every write of the ledger reads this table. It stays small and is rarely written: what becomes
    of single deliveries belongs elsewhere.
    """

    __tablename__ = "notice_endpoints"

    endpoint_id: Mapped[UuidPrimaryKey]
    url: Mapped[str] = mapped_column(String)
    """Where notices are sent, without a user or password in it."""
    types: Mapped[list[str]] = mapped_column(ARRAY(Text))
    """What it wants to be told: values of `NoticeType`, one or more."""
    low_threshold: Mapped[int | None] = mapped_column(Integer)
    """`credits.low` is told when a balance that was above falls to this or below: whole credits,
    1 or more; NULL where it is not told."""
    expiring_lead_seconds: Mapped[int | None] = mapped_column(BigInteger)
    """How long before they expire `credits.expiring` is told; NULL where it is not told."""
    disabled_at: Mapped[Instant | None]
    """Since when nothing is written for it or sent to it; NULL while it is enabled."""
    disabled_reason: Mapped[str | None] = mapped_column(String)
    """Why, in words of ours; NULL while it is enabled."""
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[Instant | None] = mapped_column(onupdate=func.now())

    __table_args__ = (
        CheckConstraint(f"length(url) BETWEEN 1 AND {URL_LENGTH_MAX}", "url_length"),
        CheckConstraint(
            f"cardinality(types) > 0 AND types <@ {text_array(NoticeType)}",
            "types_are_known",
        ),
        CheckConstraint("low_threshold > 0", "low_threshold_positive"),
        CheckConstraint(
            f"(low_threshold IS NOT NULL) = ('{NoticeType.LOW}' = ANY (types))",
            "low_has_threshold",
        ),
        CheckConstraint(
            f"expiring_lead_seconds BETWEEN 1 AND {EXPIRING_LEAD_SECONDS_MAX}",
            "expiring_lead_bounds",
        ),
        CheckConstraint(
            f"(expiring_lead_seconds IS NOT NULL) = ('{NoticeType.EXPIRING}' = ANY (types))",
            "expiring_has_lead",
        ),
        CheckConstraint("(disabled_at IS NULL) = (disabled_reason IS NULL)", "disabled_says_why"),
    )


class NoticeSecret(Base):
    """A secret that signs what one endpoint is sent. Several may be valid at once.

    It is shown once, when it is made. Whoever signs needs it as it is, so no hash would do.
    """

    __tablename__ = "notice_secrets"

    secret_id: Mapped[UuidPrimaryKey]
    endpoint_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("notice_endpoints.endpoint_id", ondelete="CASCADE"), index=True
    )
    secret: Mapped[bytes] = mapped_column(LargeBinary, info=PRIVATE)
    """Random bytes; in no list, log or repr."""
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[Instant | None]
    """From then on it signs nothing; NULL for the newest."""

    __table_args__ = (
        # What the specification of Standard Webhooks allows.
        CheckConstraint("octet_length(secret) BETWEEN 24 AND 64", "secret_length"),
    )
