"""The workers' signs of life: one row a worker, renewed while its process lives; never commits."""

import datetime as dt
import uuid
from dataclasses import dataclass

from sqlalchemy import DateTime, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from src.common.models.worker_heartbeat import WorkerHeartbeat

INTERVAL_SECONDS = 15.0
"""How often a worker leaves a sign of life."""
ALIVE_SECONDS = 60.0
"""A worker whose newest sign is older is taken for gone."""
KEPT = dt.timedelta(days=1)
"""How long the row of one that is gone is kept."""
CONNECTIONS_MAX = 11
"""The most connections one worker has open: one a kind of work, and one for its signs of life."""


@dataclass(frozen=True, kw_only=True)
class Workers:
    """What is known of the workers."""

    alive: int
    """How many left a sign of life within `ALIVE_SECONDS` and did not end."""
    age_seconds: float | None
    """How long ago the newest sign of any worker was; None where there is none within a day."""
    longest_work: str | None
    """The kind of work that a living worker has been at the longest in one step; None if none."""
    longest_seconds: float
    """How long that has been."""


def beat(
    session: Session,
    worker_id: uuid.UUID,
    *,
    work: str | None = None,
    work_seconds: float = 0,
    has_ended: bool = False,
) -> None:
    """Leave a sign of life, and drop rows of workers that are long gone.

    `work` is the kind of work the worker has been at the longest, in its current step, and
    `work_seconds` for how long.
    """
    now = func.clock_timestamp(type_=DateTime(timezone=True))
    signs = {
        "beat_at": now,
        "ended_at": now if has_ended else None,
        "work": work,
        "work_began_at": now - dt.timedelta(seconds=work_seconds) if work else None,
    }
    session.execute(
        insert(WorkerHeartbeat)
        .values(worker_id=worker_id, **signs)
        .on_conflict_do_update(index_elements=[WorkerHeartbeat.worker_id], set_=signs)
    )
    session.execute(delete(WorkerHeartbeat).where(WorkerHeartbeat.beat_at < now - KEPT))


def read_workers(session: Session) -> Workers:
    """What the workers' signs of life say now."""
    now = session.scalars(select(func.clock_timestamp(type_=DateTime(timezone=True)))).one()
    rows = session.scalars(
        select(WorkerHeartbeat)
        .order_by(WorkerHeartbeat.beat_at.desc())
        .execution_options(populate_existing=True)
    ).all()
    recent = now - dt.timedelta(seconds=ALIVE_SECONDS)
    alive = [row for row in rows if row.ended_at is None and row.beat_at >= recent]
    busy = [(row.work_began_at, row.work) for row in alive if row.work_began_at is not None]
    since, work = min(busy, default=(now, None))
    return Workers(
        alive=len(alive),
        age_seconds=(now - rows[0].beat_at).total_seconds() if rows else None,
        longest_work=work,
        longest_seconds=(now - since).total_seconds(),
    )
