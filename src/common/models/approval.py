"""What somebody asked for that a second person has to consent to, and what became of it."""

import uuid
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, CreatedAt, Instant, UuidPrimaryKey, text_array

ERASURE_ACTOR = "system:erasure"
"""Who withdraws what is still open about a person who is erased."""


class ApprovalOperation(StrEnum):
    """What can be asked for."""

    GRANT = "grant"
    ADJUSTMENT = "adjustment"
    REVERSAL = "reversal"
    RELEASE = "release"
    """A hold that is given up."""
    REFUND = "refund"
    PAYMENT = "payment"
    """An unmatched payment that is to be credited."""
    API_KEY = "api_key"
    """A key that can move credits, or pay money back."""


class Decision(StrEnum):
    """What was decided about a request; `open` until then, and also once its time is over."""

    OPEN = "open"
    CONSENTED = "consented"
    """Somebody else consented. Credits were moved in the same database transaction; a refund was
    written down in it, and is asked of Stripe until Stripe answers."""
    REFUSED = "refused"
    """Somebody else refused."""
    WITHDRAWN = "withdrawn"
    """Whoever had asked took it back, or the person it is about was erased."""


class Approval(Base):
    """One request. It is decided once; triggers keep all else as it was asked (rule 13)."""

    __tablename__ = "approvals"

    approval_id: Mapped[UuidPrimaryKey]
    """Part of the key with which it is executed."""
    user_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.user_id"))
    """Whose credits or money it is about; NULL for an API key."""
    transaction_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("transactions.transaction_id")
    )
    """The purchase, where a refund is asked for."""
    command: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """What is asked for: its `operation`, a value of `ApprovalOperation`, the `version` of its
    form, and what the operation needs; never text that a person wrote, but a service's name."""
    reason: Mapped[str | None] = mapped_column(String)
    """Why, as whoever asks says; NULL once the person it is about is erased."""
    requester: Mapped[str] = mapped_column(String)
    """Who asks: `user:` or `system:` and an id, never a name."""
    idempotency_key: Mapped[str] = mapped_column(String)
    """The requester's, unique for the user's requests, and for those about no user."""
    request_digest: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of what was asked: the same key with another request is refused."""
    status: Mapped[str] = mapped_column(String, default="open", server_default=text("'open'"))
    """What was decided: a value of `Decision`."""
    decider: Mapped[str | None] = mapped_column(String)
    """Who decided: as the requester is named, and somebody else unless it is withdrawn."""
    note: Mapped[str | None] = mapped_column(String)
    """What the decider says about it; NULL once the person it is about is erased."""
    created_at: Mapped[CreatedAt] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[Instant]
    """From this instant on nobody can decide any more."""
    decided_at: Mapped[Instant | None]

    __table_args__ = (
        UniqueConstraint("user_id", "idempotency_key"),
        CheckConstraint(
            "(jsonb_typeof(command) = 'object' AND jsonb_typeof(command -> 'version') = 'number'"
            f" AND command ->> 'operation' = ANY ({text_array(ApprovalOperation)})) IS TRUE",
            "command_is_versioned",
        ),
        CheckConstraint(
            f"(command ->> 'operation' = '{ApprovalOperation.REFUND}')"
            " = (transaction_id IS NOT NULL)",
            "refund_names_purchase",
        ),
        CheckConstraint(
            f"(command ->> 'operation' = '{ApprovalOperation.API_KEY}') = (user_id IS NULL)",
            "key_names_no_user",
        ),
        CheckConstraint(f"status = ANY ({text_array(Decision)})", "status"),
        CheckConstraint("length(idempotency_key) BETWEEN 1 AND 255", "key_length"),
        CheckConstraint("octet_length(request_digest) = 32", "digest_is_sha256"),
        CheckConstraint("length(reason) BETWEEN 1 AND 255", "reason_length"),
        CheckConstraint("length(note) BETWEEN 1 AND 255", "note_length"),
        CheckConstraint("expires_at > created_at", "expires_later"),
        CheckConstraint(
            "(status = 'open') = (decider IS NULL) AND (status = 'open') = (decided_at IS NULL)"
            " AND (status <> 'open' OR note IS NULL)",
            "decided_says_by_whom",
        ),
        CheckConstraint("decided_at < expires_at", "decided_in_time"),
        CheckConstraint(
            "CASE status WHEN 'open' THEN true"
            f" WHEN 'withdrawn' THEN decider = ANY (ARRAY[requester, '{ERASURE_ACTOR}'])"
            " ELSE decider <> requester END",
            "decided_by_somebody_else",
        ),
        Index("ix_approvals_created_at", "created_at", "approval_id"),
        Index(
            "ix_approvals_of_no_user",
            "idempotency_key",
            unique=True,
            postgresql_where=text("user_id IS NULL"),
        ),
        Index("ix_approvals_open", "expires_at", postgresql_where=text("status = 'open'")),
    )
