"""Counts unexpected failures of the worker, by kind of work; never commits."""

from collections.abc import Mapping

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from src.common.models.worker_failure import WorkerFailure
from src.common.postgres.kept_errors import KeptError

KINDS = (
    *("bookings", "verification", "events", "lookups", "deliveries", "bodies", "expiring"),
    *("refunds", "reconciliation", "anchors"),
)
"""Every kind of work there is (`src/cli/work.py` does it)."""


def note(session: Session, work: str, error: KeptError) -> None:
    """Count one more failure of this kind of work."""
    failure = {
        "error_type": error.error_type,
        "message": error.message,
        "last_failed_at": func.clock_timestamp(),
    }
    session.execute(
        insert(WorkerFailure)
        .values(work=work, failures=1, **failure)
        .on_conflict_do_update(
            index_elements=[WorkerFailure.work],
            set_={**failure, "failures": WorkerFailure.failures + 1},
        )
    )


def count_failures(session: Session) -> Mapping[str, int]:
    """How often each kind of work has failed; kinds that never did are missing."""
    rows = session.execute(select(WorkerFailure.work, WorkerFailure.failures))
    return {work: failures for work, failures in rows}  # noqa: C416  the types of both
