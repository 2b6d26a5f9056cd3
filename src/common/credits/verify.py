"""Recomputing the books from the journal and naming what differs (DESIGN §4 rule 9).

The walls refuse such a difference at commit; this finds what got past them: a superuser who
switched triggers off, a restore gone wrong, a defect of ours. One statement a batch of users, so
each batch is one snapshot: operations going on meanwhile make no difference.
"""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ARRAY, TextualSelect, Uuid, bindparam, func, select, text
from sqlalchemy.orm import Session, sessionmaker

from src.common.credits.verify_statement import NO_OPENING_ENTRY, ORPHANS, STATEMENT
from src.common.models.user import User
from src.common.silent_servers import lift_time_limits

BATCH_SIZE = 500
"""Users a statement."""
LOWEST, HIGHEST = uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)
"""No user_id is beyond these."""
FIRST_MAX = 100
"""How many differences a report names; it counts them all."""
_ROWS = 1_000
"""Differences fetched at a time."""
_STATEMENT = (
    text(STATEMENT)
    .bindparams(bindparam("user_ids", type_=ARRAY(Uuid(as_uuid=True))))
    .columns(user_id=Uuid(as_uuid=True))
)
_ORPHANS = (
    text(ORPHANS)
    .bindparams(bindparam("first", type_=Uuid()), bindparam("last", type_=Uuid()))
    .columns(user_id=Uuid(as_uuid=True))
)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A row of the books that is not what the others say."""

    user_id: uuid.UUID
    seq: int | None
    """The entry, lot or hold; None where it is the user's own row."""
    kind: str
    """What does not agree, in capitals."""
    expected: str | None
    """What the rest of the books says."""
    found: str | None


@dataclass(kw_only=True)
class Report:
    """What was recomputed so far."""

    users: int = 0
    differing_users: int = 0
    differences: int = 0
    first: list[Difference] = field(default_factory=list[Difference])
    """The first of the differences."""
    without_opening_entry: int = 0
    """Users with a balance and no entry at all: from before the ledger, and no difference."""


def verify(
    sessions: sessionmaker[Session],
    *,
    user_ids: Sequence[uuid.UUID] | None = None,
    batch_size: int = BATCH_SIZE,
) -> Iterator[Report]:
    """Recompute the books of these users, or of everybody; yields the report after each batch.

    It owns short database transactions, one a batch, so that it holds up neither vacuum nor a
    migration; its memory is bounded. Where everybody's are asked for, books without a user are
    found too.
    """
    report = Report()
    for batch in _batches(sessions, user_ids, batch_size):
        with sessions.begin() as session:
            recompute(session, report, batch)
        yield report
    if user_ids is None:
        with sessions.begin() as session:
            recompute(session, report, [], orphans_within=(LOWEST, HIGHEST))
        yield report


def recompute(
    session: Session,
    report: Report,
    user_ids: Sequence[uuid.UUID],
    *,
    orphans_within: tuple[uuid.UUID, uuid.UUID] | None = None,
) -> None:
    """Add to the report what these users' books show, and the books without a user in a range.

    The range includes both its ends.
    """
    # A single user's journal may be long, and whoever verifies waits for it.
    lift_time_limits(session)
    if user_ids:
        _count(session, _STATEMENT, report, {"user_ids": user_ids})
        report.users += len(user_ids)
    if orphans_within is not None:
        first, last = orphans_within
        _count(session, _ORPHANS, report, {"first": first, "last": last})


def count_users(session: Session) -> int:
    """How many users there are to verify."""
    return session.scalars(select(func.count()).select_from(User)).one()


def sample_users(session: Session, size: int) -> Sequence[uuid.UUID]:
    """So many users, each as likely as any other."""
    return session.scalars(select(User.user_id).order_by(func.random()).limit(size)).all()


def _batches(
    sessions: sessionmaker[Session], user_ids: Sequence[uuid.UUID] | None, size: int
) -> Iterator[Sequence[uuid.UUID]]:
    if user_ids is not None:
        for start in range(0, len(user_ids), size):
            yield user_ids[start : start + size]
        return
    statement = select(User.user_id).order_by(User.user_id).limit(size)
    after = statement
    while True:
        with sessions.begin() as session:
            batch = session.scalars(after).all()
        if not batch:
            return
        yield batch
        after = statement.where(User.user_id > batch[-1])


def _count(
    session: Session, statement: TextualSelect, report: Report, parameters: dict[str, Any]
) -> None:
    rows = session.execute(statement, parameters, execution_options={"yield_per": _ROWS})
    last_user: uuid.UUID | None = None
    for row in rows.mappings():
        if row["kind"] == NO_OPENING_ENTRY:
            report.without_opening_entry += 1
            continue
        report.differences += 1
        report.differing_users += row["user_id"] != last_user
        last_user = row["user_id"]
        if len(report.first) < FIRST_MAX:
            report.first.append(Difference(**row))
