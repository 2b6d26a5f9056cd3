"""Recomputing the books from the journal and naming what differs (DESIGN §4 rule 9).

The triggers refuse such a difference at commit; this finds what got past them: a superuser who
switched them off, a restore gone wrong, a defect of ours. Each journal is put through the rules
once more, and every column of every row compared with what they write (decision 0021). Where that
differs, sums in SQL, which know no rule, say what does not add up. One statement reads a batch of
users, so a batch is one snapshot: operations going on meanwhile make no difference.
"""

import uuid
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from src.common.credits.verification.recompute import (
    HIGHEST,
    LOWEST,
    add_sums,
    recompute,
    recompute_one_by_one,
    replay_rows,
)
from src.common.credits.verification.report import Report
from src.common.credits.verification.stored import (
    RawRows,
    Versions,
    fetch_rows,
    portions_of,
    versions_of,
)
from src.common.exceptions import DatabaseBusy
from src.common.models.user import User
from src.common.silent_servers import lift_time_limits

BATCH_SIZE = 2_000
"""Users a statement, at most: whoever reads ahead waits several times for who replays."""


def verify(
    sessions: sessionmaker[Session],
    *,
    user_ids: Sequence[uuid.UUID] | None = None,
    batch_size: int = BATCH_SIZE,
) -> Iterator[Report]:
    """Recompute the books of these users, or of everybody; yields the report after each batch.

    It owns short database transactions, one a batch, so that it holds up neither vacuum nor a
    migration; its memory is bounded. One batch is read while the one before it is replayed. Where
    everybody's are asked for, books without a user are found too.

    Raises:
        DatabaseBusy: a passing condition of the database.
    """
    report = Report()
    with (
        closing(_fetched(sessions, user_ids, batch_size)) as batches,
        ThreadPoolExecutor(1, thread_name_prefix="verify") as reader,
    ):
        upcoming = reader.submit(next, batches, None)
        while (batch := upcoming.result()) is not None:
            upcoming = reader.submit(next, batches, None)
            part = _replayed(batch)
            if part is None or part.differing or batch.too_long:
                upcoming.exception()  # until it has read: one connection is enough
            report.merge(_completed(sessions, batch, part))
            yield report
    if user_ids is None:
        with sessions.begin() as session:
            recompute(session, report, [], orphans_within=(LOWEST, HIGHEST))
        yield report


def count_users(session: Session) -> int:
    """How many users there are to verify."""
    return session.scalars(select(func.count()).select_from(User)).one()


def sample_users(session: Session, size: int) -> Sequence[uuid.UUID]:
    """So many users, each as likely as any other."""
    return session.scalars(select(User.user_id).order_by(func.random()).limit(size)).all()


class _Batch(NamedTuple):
    """Users, their rows, if they could be read, and users whose journals are too long."""

    user_ids: Sequence[uuid.UUID]
    rows: Sequence[RawRows] | None
    too_long: Sequence[uuid.UUID]


class _Part(NamedTuple):
    """What replaying a batch showed."""

    report: Report
    differing: Sequence[uuid.UUID]


def _replayed(batch: _Batch) -> _Part | None:
    """What the rules say of a batch; None where it must be gone through user by user."""
    if batch.rows is None:
        return None
    report = Report()
    try:
        return _Part(report, replay_rows(report, batch.rows))
    except Exception:  # noqa: BLE001  an edge: whoever is at fault is named, user by user
        return None


def _completed(sessions: sessionmaker[Session], batch: _Batch, part: _Part | None) -> Report:
    """The batch's report, with all that needs the database once more."""
    if part is not None and not part.differing and not batch.too_long:
        return part.report
    report = Report() if part is None else part.report
    with sessions.begin() as session:
        if part is None:
            recompute_one_by_one(session, report, batch.user_ids)
        add_sums(session, report, () if part is None else part.differing, batch.too_long)
    return report


def _fetched(
    sessions: sessionmaker[Session], user_ids: Sequence[uuid.UUID] | None, size: int
) -> Generator[_Batch]:
    """All wanted users; each batch is read when it is asked for."""
    if user_ids is not None:
        for start in range(0, len(user_ids), size):
            yield from _fetch(sessions, versions_of(user_ids[start : start + size]))
        return
    page = versions_of(None).limit(size)
    while last := (yield from _fetch(sessions, page)):
        page = versions_of(None).where(User.user_id > last).limit(size)


def _fetch(
    sessions: sessionmaker[Session], users: Versions
) -> Generator[_Batch, None, uuid.UUID | None]:
    """These users; the last of them, None where there are none."""
    with sessions.begin() as session:
        found = session.execute(users).all()
    portions, too_long = portions_of(found)
    if too_long:
        yield _Batch([], [], too_long)
    for portion in portions:
        yield _Batch(portion, _rows_of(sessions, portion), [])
    return found[-1].user_id if found else None


def _rows_of(
    sessions: sessionmaker[Session], user_ids: Sequence[uuid.UUID]
) -> Sequence[RawRows] | None:
    try:
        with sessions.begin() as session:
            lift_time_limits(session)
            return fetch_rows(session, user_ids)
    except DatabaseBusy:
        raise
    except Exception:  # noqa: BLE001  an edge: whoever is at fault is named, user by user
        return None
