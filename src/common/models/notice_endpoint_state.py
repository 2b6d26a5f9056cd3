"""How delivery to each endpoint goes: apart from the endpoint, which every ledger write reads."""

import uuid

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, Instant


class NoticeEndpointState(Base):
    """One endpoint as its deliveries found it; no row before the first."""

    __tablename__ = "notice_endpoint_states"

    endpoint_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("notice_endpoints.endpoint_id", ondelete="CASCADE"), primary_key=True
    )
    failures: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """How often in a row it was out of reach."""
    delivered: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    """How many notices it has taken, ever."""
    failed: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    """How many attempts have failed, ever."""
    paused_until: Mapped[Instant | None]
    """Until when nothing is sent to it; NULL or past: it is."""
    last_delivered_at: Mapped[Instant | None]
    """When it last took something."""
    last_failed_at: Mapped[Instant | None]
    last_error: Mapped[str | None] = mapped_column(String)
    """What the last failure was, in words of ours."""

    __table_args__ = (
        CheckConstraint("failures >= 0 AND delivered >= 0 AND failed >= 0", "counts_not_negative"),
        CheckConstraint("(last_failed_at IS NULL) = (last_error IS NULL)", "failure_says_why"),
    )
