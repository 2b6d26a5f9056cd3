"""Verifies one user or everybody, and names what differs (rule 9).

The triggers refuse such a difference at commit; this finds what got past them: a superuser who
switched them off, a restore gone wrong, a defect of ours. Each journal is put through the rules
once more, and every column of every row compared with what they write (decision 0021). Where that
differs, sums in SQL, which know no rule, say what does not add up. A batch of users is read in one
snapshot: operations going on meanwhile make no difference.
"""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from src.common.credits.verification.processes import verify_in_processes
from src.common.credits.verification.reading import Span, Users
from src.common.credits.verification.recompute import EVERYBODY, find_orphans, verify_batch
from src.common.credits.verification.report import Report
from src.common.exceptions import DatabaseBusy
from src.common.models.directory import DirectoryUser
from src.common.models.user import User
from src.common.postgres.lagging_reads import may_lag
from src.common.postgres.session_makers import BeginsSessions

BATCH_SIZE = 2_000
"""Users a snapshot, at most."""


def verify(
    sessions: BeginsSessions,
    *,
    otherwise: BeginsSessions | None = None,
    user_ids: Sequence[uuid.UUID] | None = None,
    batch_size: int = BATCH_SIZE,
    jobs: int = 1,
) -> Iterator[Report]:
    """Recompute the books of these users, or of everybody; yields the report after each batch.

    It owns short database transactions, one a batch, so that it holds up neither vacuum nor a
    migration; its memory is bounded. Where everybody's are asked for, books without a user are
    found too.

    More than one of `jobs` are processes: then pickle can name `sessions`, as `SessionLocal`.

    A batch that meets a passing condition of the database, or names a user whom it lacks, is read
    by sessions of `otherwise`, where that is given: of the primary, where `sessions` are a
    replica's.

    Raises:
        DatabaseBusy: a passing condition of the database.
    """
    report = Report()
    batches = _batches(otherwise or sessions, user_ids, batch_size)
    if jobs > 1:
        parts = verify_in_processes(sessions, batches, jobs, otherwise)
    else:
        parts = (verify_batch(sessions, batch, otherwise) for batch in batches)
    with closing(parts):
        for part in parts:
            report.merge(part)
            yield report
    if user_ids is None:
        report.merge(_orphans(sessions, otherwise))
        yield report


def _orphans(sessions: BeginsSessions, otherwise: BeginsSessions | None) -> Report:
    report = Report()
    try:
        with sessions.begin() as session:
            find_orphans(session, report, EVERYBODY)
    except DatabaseBusy:
        if otherwise is None:
            raise
        return _orphans(otherwise, None)
    return report


@may_lag
def count_users(session: Session) -> int:
    """How many users there are to verify."""
    return session.scalars(select(func.count()).select_from(User)).one()


@may_lag
def sample_users(session: Session, size: int) -> Sequence[uuid.UUID]:
    """So many users, each as likely as any other."""
    return session.scalars(select(User.user_id).order_by(func.random()).limit(size)).all()


@may_lag
def sample_directory(session: Session, size: int) -> dict[str, list[uuid.UUID]]:
    """The same of all groups of users, by their group."""
    found: dict[str, list[uuid.UUID]] = {}
    chosen = select(DirectoryUser.schema, DirectoryUser.user_id)
    for schema, user_id in session.execute(chosen.order_by(func.random()).limit(size)):
        found.setdefault(schema, []).append(user_id)
    return found


def _batches(
    sessions: BeginsSessions, user_ids: Sequence[uuid.UUID] | None, size: int
) -> Iterator[Users]:
    """All wanted users, so many at a time."""
    if user_ids is not None:
        for start in range(0, len(user_ids), size):
            yield list(user_ids[start : start + size])
        return
    first, last = EVERYBODY
    while True:
        page = select(User.user_id).where(User.user_id >= first).order_by(User.user_id)
        with sessions.begin() as session:
            following = session.scalars(page.offset(size).limit(1)).one_or_none()
        if following is None:
            yield Span(first, last)
            return
        yield Span(first, uuid.UUID(int=following.int - 1))
        first = following
