"""The outbox: what endpoints are to be told, one row a notice and endpoint (rule 15).

Written by triggers (`notice_triggers.py`), in the database transaction of what it tells.
"""

import uuid
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, Integer, String, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, Instant, text_array


class NoticeType(StrEnum):
    """What a notice tells."""

    GRANTED = "credits.granted"
    SPENT = "credits.spent"
    LOW = "credits.low"
    EXHAUSTED = "credits.exhausted"
    EXPIRING = "credits.expiring"
    REVERSED = "credits.reversed"
    DEBT_OPENED = "credits.debt_opened"
    DEBT_SETTLED = "credits.debt_settled"
    PURCHASE_CREDITED = "purchase.credited"
    PURCHASE_REFUNDED = "purchase.refunded"
    PURCHASE_DISPUTED = "purchase.disputed"
    HOLD_EXPIRED = "hold.expired"


class NoticeStatus(StrEnum):
    """How far a notice has come."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    """Nobody tries any more, until somebody replays it."""


class CreditNotice(Base):
    """One thing that happened to a user's credits or purchases, for one endpoint.

    What it tells never changes; how far it has come does. Its entry is in the same database
    transaction, so no foreign key looks for it: entries are never deleted.
    """

    __tablename__ = "credit_notices"

    user_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    """Drawn while the user's row is locked: of one user, the order in which it was committed."""
    endpoint_id: Mapped[uuid.UUID]
    """Whom it is for. No foreign key: each notice would lock the endpoint's row, and all writers
    would meet there. What is for an endpoint that is gone, the worker drops."""
    type: Mapped[str] = mapped_column(String)
    """A value of `NoticeType`."""
    seq: Mapped[int | None] = mapped_column(Integer)
    """The entry it tells of; of expiring credits that of their lot; of debts the newest then. NULL
    where money went back, which need not move credits."""
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """What is told: ids, numbers, instants and words of ours, nothing a person or caller wrote."""
    created_at: Mapped[Instant] = mapped_column(server_default=func.clock_timestamp())
    """When it happened: of an entry when it was booked."""
    status: Mapped[str] = mapped_column(String, server_default=text("'pending'"))
    """A value of `NoticeStatus`."""
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    """How often it was sent, or sending it was begun."""
    next_attempt_at: Mapped[Instant | None] = mapped_column(server_default=func.clock_timestamp())
    """When it is sent next; NULL once nobody does."""
    lease_expires_at: Mapped[Instant | None]
    """Until when one worker holds it."""
    response_status: Mapped[int | None] = mapped_column(Integer)
    """The HTTP status of the last answer; NULL where there was none."""
    error: Mapped[str | None] = mapped_column(String)
    """Why the last attempt failed, in words of ours; NULL where it did not."""
    finished_at: Mapped[Instant | None]
    """When it was delivered or given up."""

    __table_args__ = (
        CheckConstraint(f"type = ANY ({text_array(NoticeType)})", "type"),
        CheckConstraint(f"status = ANY ({text_array(NoticeStatus)})", "status"),
        CheckConstraint("jsonb_typeof(data) = 'object'", "data_is_object"),
        CheckConstraint("attempts >= 0", "attempts_not_negative"),
        CheckConstraint(
            "(status = 'pending') = (finished_at IS NULL)"
            " AND (status = 'pending') = (next_attempt_at IS NOT NULL)",
            "finished_or_tried_again",
        ),
        # Everybody's, newest first: for operators, and for whoever watches.
        Index("ix_credit_notices_number", "number", unique=True),
        # What each endpoint still waits for, oldest first.
        Index(
            "ix_credit_notices_pending",
            "endpoint_id",
            "number",
            postgresql_where=text("status = 'pending'"),
        ),
        # Each user's first that an endpoint still waits for, from user to user.
        Index(
            "ix_credit_notices_pending_users",
            "endpoint_id",
            "user_id",
            "number",
            postgresql_where=text("status = 'pending'"),
        ),
        # What was given up, by endpoint.
        Index(
            "ix_credit_notices_dead",
            "endpoint_id",
            "number",
            postgresql_where=text("status = 'dead'"),
        ),
        # What may be dropped.
        Index(
            "ix_credit_notices_finished_at",
            "finished_at",
            postgresql_where=text("finished_at IS NOT NULL"),
        ),
        # Whether an endpoint was told of a lot.
        Index(
            "uq_credit_notices_expiring",
            "endpoint_id",
            "user_id",
            "seq",
            unique=True,
            postgresql_where=text(f"type = '{NoticeType.EXPIRING}'"),
        ),
    )
