"""Verifies everybody's books over and over, a slice at a time, for a metric.

`flashslides worker` does it. Any number of workers share the one row that says how far they are:
whoever has it locked verifies the next slice, the others pass. A slice is one database transaction,
so a worker that is killed leaves it to the next.

A user whose books cannot even be verified must not keep the others from it: such a slice is gone
through user by user, and whoever is at fault counts as differing.
"""

import datetime as dt
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import DateTime, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from src.common.credits.verification.reading import Span, begin_snapshot
from src.common.credits.verification.recompute import (
    EVERYBODY,
    find_orphans,
    recompute,
    recompute_one_by_one,
)
from src.common.credits.verification.report import Report
from src.common.models.credit_verification import START, CreditVerification
from src.common.models.directory import DirectoryUser
from src.common.models.user import User
from src.common.postgres.silent_servers import lift_time_limits


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What the workers know about the books."""

    users: int
    """Whose books differ: of the pass that is going on or of the last whole one, whichever found
    more. So a difference shows as soon as it is found, and goes when a whole pass found none."""
    age_seconds: float | None
    """How long ago the last whole pass ended; None where none has."""


InEachGroup = Callable[[Callable[[Session], None]], None]
"""Runs work in a database transaction of each group of users, one after the other."""


def verify_next_slice(
    session: Session,
    *,
    slice_users: int,
    interval_seconds: int,
    one_by_one: bool = False,
    in_each_group: InEachGroup | None = None,
) -> Report | None:
    """Verify the next `slice_users` users' books, and what of books without a user lies between.

    The session's database transaction is to begin here: it sees one snapshot.
    None if the last slice began less than `interval_seconds` ago, or another worker is at it. Where
    it raises, the same slice is next again: `one_by_one` it goes on past whoever is at fault.

    Where groups of users have schemas, `in_each_group` is how to see them: a slice is what each
    group has between two users of the directory.

    Raises:
        DatabaseBusy: a passing condition of the database.
    """
    begin_snapshot(session)
    row = _take(session)
    if row is None:
        return None
    row.next_slice_at = func.clock_timestamp() + dt.timedelta(seconds=interval_seconds)
    everybody = User.user_id if in_each_group is None else DirectoryUser.user_id
    next_cursor = session.scalars(
        select(everybody)
        .where(everybody >= row.cursor)
        .order_by(everybody)
        .offset(slice_users)
        .limit(1)
    ).one_or_none()
    last = EVERYBODY.last if next_cursor is None else uuid.UUID(int=next_cursor.int - 1)
    report, span = Report(), Span(row.cursor, last)

    def look(seeing: Session) -> None:
        if seeing is not session:
            begin_snapshot(seeing)
        (recompute_one_by_one if one_by_one else recompute)(seeing, report, span)
        find_orphans(seeing, report, span)

    if in_each_group is None:
        look(session)
    else:
        lift_time_limits(session)  # it waits for the others
        in_each_group(look)
    row.users += report.users
    row.differing_users += report.differing_users
    if next_cursor is None:
        row.last_pass_users = row.users
        row.last_pass_differing_users = row.differing_users
        row.last_pass_ended_at = row.started_at = func.clock_timestamp()
        row.users = row.differing_users = 0
    row.cursor = next_cursor or START
    session.flush()
    return report


def _take(session: Session) -> CreditVerification | None:
    """Lock the row, if it is time and nobody else has it; the first to come writes it."""
    if session.scalars(select(CreditVerification.verification_id)).one_or_none() is None:
        # Not every time: beside a worker at its slice this would wait for it.
        session.execute(insert(CreditVerification).values().on_conflict_do_nothing())
    return session.scalars(
        select(CreditVerification)
        .where(CreditVerification.next_slice_at <= func.clock_timestamp())
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).one_or_none()


def drift(session: Session) -> Drift:
    """What the workers have found, without looking at any book."""
    now = func.clock_timestamp(type_=DateTime(timezone=True))
    found = session.execute(
        select(CreditVerification, now).execution_options(populate_existing=True)
    ).one_or_none()
    if found is None:
        return Drift(users=0, age_seconds=None)
    row, instant = found
    users, ended_at = row.differing_users, row.last_pass_ended_at
    if row.last_pass_differing_users is not None:
        users = max(users, row.last_pass_differing_users)
    age = None if ended_at is None else (instant - ended_at).total_seconds()
    return Drift(users=users, age_seconds=age)
