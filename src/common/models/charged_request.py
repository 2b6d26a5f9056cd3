"""Requests with a key that endpoints charge for: the newest try, and its answer."""

import uuid

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Uuid,
)
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, Instant

BODY_BYTES_MAX = 16_777_216
"""The settings allow no more (CHARGE_REPLAY_MAX_BYTES)."""


class ChargedRequest(Base):
    """The newest attempt at a charged request, and its answer once it was charged.

    For a while only: which requests were charged says the journal, for ever.
    """

    __tablename__ = "charged_requests"

    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.user_id"), primary_key=True)
    """Who is charged."""
    key_digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    """SHA-256 of the `Idempotency-Key`."""
    request_digest: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of what was asked, and by whom."""
    claim_id: Mapped[uuid.UUID] = mapped_column(Uuid)
    """Identifies the attempt. A later attempt has another."""
    hold_seq: Mapped[int] = mapped_column(Integer)
    """The hold of that attempt. While it is open, no other attempt begins."""
    status: Mapped[int | None] = mapped_column(SmallInteger)
    """The answer's, as its headers and body: none while the work goes on, and none where it cannot
    be kept."""
    headers: Mapped[list[bytes] | None] = mapped_column(ARRAY(LargeBinary))
    """Name, value, name, value …"""
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    """At most 16 MiB."""
    expires_at: Mapped[Instant]
    """When the row no longer counts and may be deleted."""

    __table_args__ = (
        CheckConstraint("octet_length(key_digest) = 32", "key_is_sha256"),
        CheckConstraint("octet_length(request_digest) = 32", "digest_is_sha256"),
        CheckConstraint("num_nulls(status, headers, body) IN (0, 3)", "answer_is_whole"),
        CheckConstraint(f"octet_length(body) <= {BODY_BYTES_MAX}", "body_is_bounded"),
        Index("ix_charged_requests_expires_at", "expires_at"),
    )
