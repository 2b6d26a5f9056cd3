"""The inbox: every webhook Stripe sends, stored before anything is done about it."""

from sqlalchemy import CheckConstraint, Index, Integer, LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, CreatedAt, Instant

STRIPE_EVENT_STATUSES = ("received", "processed", "ignored", "unmatched", "failed", "dead")


class StripeEvent(Base):
    """One event of Stripe's. A copy of it finds this row and does nothing."""

    __tablename__ = "stripe_events"

    livemode: Mapped[bool] = mapped_column(primary_key=True)
    """Whether it is of real money."""
    event_id: Mapped[str] = mapped_column(String, primary_key=True)
    """`evt_…`"""
    type: Mapped[str] = mapped_column(String)
    """What happened, as Stripe calls it: `checkout.session.completed` …"""
    api_version: Mapped[str | None] = mapped_column(String)
    """Of Stripe's API, in which the body is written; a thin event has none."""
    object_id: Mapped[str | None] = mapped_column(String, index=True)
    """The Stripe object the event is about, to find an object's events."""
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The raw body as signed; NULL once dropped, some days after processing (rule 11)."""
    status: Mapped[str] = mapped_column(
        String, default="received", server_default=text("'received'")
    )
    """A value of `STRIPE_EVENT_STATUSES`."""
    attempts: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """How often processing has begun. It is counted first, since an event may kill the process."""
    error: Mapped[str | None] = mapped_column(String)
    """Why the last attempt failed; NULL where it did not."""
    remark: Mapped[str | None] = mapped_column(String)
    """What is unusual about it: it is a connected account's, of a type we do not handle, or of an
    API version we do not know."""
    stripe_created_at: Mapped[Instant]
    """When Stripe made it, to the second."""
    received_at: Mapped[CreatedAt]
    """When it was stored here."""
    processed_at: Mapped[Instant | None]
    next_attempt_at: Mapped[Instant | None]
    """When the worker tries next; NULL once nobody does."""
    lease_expires_at: Mapped[Instant | None]
    """Until when one worker holds the event. Others leave it alone until then."""
    needs_lookup: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Whether Stripe has to be asked about it: found out by an attempt that was not to ask."""

    __table_args__ = (
        CheckConstraint(
            f"status IN ({', '.join(repr(status) for status in STRIPE_EVENT_STATUSES)})", "status"
        ),
        CheckConstraint("attempts >= 0", "attempts_not_negative"),
        CheckConstraint("event_id <> ''", "event_id_not_empty"),
        Index(
            "ix_stripe_events_due",
            "next_attempt_at",
            postgresql_where=text("status IN ('received', 'failed')"),
        ),
        Index("ix_stripe_events_received_at", "received_at"),
        Index("ix_stripe_events_type", "type", "received_at"),
        Index("ix_stripe_events_dead", "received_at", postgresql_where=text("status = 'dead'")),
    )
