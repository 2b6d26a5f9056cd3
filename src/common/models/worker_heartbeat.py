"""Signs of life of the workers: one row a worker, which it renews while its process lives."""

import uuid

from sqlalchemy import CheckConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, CreatedAt, Instant


class WorkerHeartbeat(Base):
    """One worker process. Its row is dropped a day after its last sign of life."""

    __tablename__ = "worker_heartbeats"

    worker_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    """Drawn by the process when it starts."""
    started_at: Mapped[CreatedAt]
    """When it left its first sign of life."""
    beat_at: Mapped[Instant]
    """When it left its last one."""
    ended_at: Mapped[Instant | None]
    """When it was told to end, or had done what was due; NULL while it works, or was killed."""
    work: Mapped[str | None] = mapped_column(String)
    """The kind of work it has been at the longest, in the current step; NULL if it rests."""
    work_began_at: Mapped[Instant | None]
    """When that step began."""

    __table_args__ = (
        CheckConstraint("(work IS NULL) = (work_began_at IS NULL)", "work_says_since_when"),
    )
