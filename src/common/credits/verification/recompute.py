"""Verifies a batch of users, or each alone where the batch cannot be read.

A user whose books cannot even be read must not keep the others from being verified.
"""

import gc
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import ARRAY, TextualSelect, Uuid, bindparam, text
from sqlalchemy.orm import Session

from src.common.credits.verification.chained import recompute_chain, unfitting
from src.common.credits.verification.comparison import compare_user, is_unopened
from src.common.credits.verification.reading import (
    Span,
    Users,
    begin_snapshot,
    fetch_rows,
    portions_of,
    read_ledger,
    versions_of,
)
from src.common.credits.verification.report import Difference, Report
from src.common.credits.verification.stored import StoredRows, UnreadableRows
from src.common.credits.verification.sums import ORPHANS, STATEMENT
from src.common.exceptions import DatabaseBusy
from src.common.postgres.kept_errors import keep
from src.common.postgres.session_makers import BeginsSessions
from src.common.postgres.silent_servers import lift_time_limits

EVERYBODY = Span(uuid.UUID(int=0), uuid.UUID(int=2**128 - 1))
"""No user_id is beyond these."""
NOT_VERIFIABLE = "NOT_VERIFIABLE"
"""The difference that stands for an error: what the books say, verifying cannot even read."""
_ROWS = 1_000
"""Differences fetched at a time."""
_SUMS = (
    text(STATEMENT)
    .bindparams(bindparam("user_ids", type_=ARRAY(Uuid(as_uuid=True))))
    .columns(user_id=Uuid(as_uuid=True))
)
_ORPHANS = (
    text(ORPHANS)
    .bindparams(bindparam("first", type_=Uuid()), bindparam("last", type_=Uuid()))
    .columns(user_id=Uuid(as_uuid=True))
)


def recompute(session: Session, report: Report, users: Users) -> None:
    """Add to the report what these users' books show.

    `begin_snapshot` comes first wherever others write meanwhile.
    """
    # A single user's journal may be long, and whoever verifies waits for it.
    lift_time_limits(session)
    portions, too_long = portions_of(session.execute(versions_of(users)).all())
    differing: list[uuid.UUID] = []
    for portion in portions:
        is_span = isinstance(users, Span)
        with _no_search_for_cycles():
            rows = fetch_rows(session, Span(portion[0], portion[-1]) if is_span else portion)
            differing += _replay(report, rows)
            del rows
    _add_sums(session, report, differing, too_long)


def recompute_one_by_one(session: Session, report: Report, users: Users) -> None:
    """As `recompute`, each user for themselves; an error is a difference of theirs."""
    for user_id, _ in session.execute(versions_of(users)).all():
        report.merge(_recomputed(session, user_id))


def verify_batch(
    sessions: BeginsSessions,
    users: Users,
    otherwise: BeginsSessions | None = None,
) -> Report:
    """What these users' books show, as of one snapshot; where that fails, each for themselves.

    Where the database is busy, or lacks a user who is named, sessions of `otherwise` read them, if
    it is given.

    Raises:
        DatabaseBusy: a passing condition of the database.
    """
    try:
        report = _reported(sessions, users, recompute)
    except DatabaseBusy:
        if otherwise is None:
            raise
        return verify_batch(otherwise, users)
    except Exception:  # noqa: BLE001  an edge: whoever is at fault is named, user by user
        return _reported(sessions, users, recompute_one_by_one)
    if otherwise is not None and not isinstance(users, Span) and report.users < len(users):
        return verify_batch(otherwise, users)
    return report


def find_orphans(session: Session, report: Report, span: Span) -> None:
    """Add to the report the books in this span that no user has."""
    lift_time_limits(session)
    for orphan in _differences(session, _ORPHANS, span._asdict()):
        report.add([orphan])


def _reported(
    sessions: BeginsSessions,
    users: Users,
    recomputing: Callable[[Session, Report, Users], None],
) -> Report:
    report = Report()
    with sessions.begin() as session:
        begin_snapshot(session)
        recomputing(session, report, users)
    return report


@contextmanager
def _no_search_for_cycles() -> Generator[None]:
    """Rows and books refer to each other in no circle, and looking for one takes a third of it all.

    They are freed as soon as nobody has them; how many there are at a time is bounded.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _replay(report: Report, rows: Sequence[StoredRows | UnreadableRows]) -> list[uuid.UUID]:
    """Add to the report what the rules say of these users' rows; whose differ."""
    differing: list[uuid.UUID] = []
    for each in rows:
        report.users += 1
        report.without_opening_entry += is_unopened(each)
        if found := compare_user(each):
            differing.append(each.user_id)
            report.add(found)
    return differing


def _add_sums(
    session: Session,
    report: Report,
    differing: Sequence[uuid.UUID],
    too_long: Sequence[uuid.UUID],
) -> None:
    """Add to the report what does not add up for users whose rows differ or were not replayed."""
    for difference in _differences(session, _SUMS, {"user_ids": differing}) if differing else ():
        report.add([difference], users=0)
    for user_id in too_long:
        report.users += 1
        report.not_replayed += 1
        found = list(_differences(session, _SUMS, {"user_ids": [user_id]}))
        try:
            unfit = unfitting(user_id, read_ledger(session), recompute_chain(session, user_id))
            found += [] if unfit is None else [unfit]
        except psycopg.DataError as error:
            found += compare_user(UnreadableRows(user_id, str(error)))
        report.add(found, users=bool(found))


def _differences(
    session: Session, statement: TextualSelect, parameters: dict[str, Any]
) -> Iterator[Difference]:
    with session.execute(statement, parameters, execution_options={"yield_per": _ROWS}) as rows:
        for row in rows.mappings():
            yield Difference(**row)


def _recomputed(session: Session, user_id: uuid.UUID) -> Report:
    report = Report()
    try:
        with session.begin_nested():
            recompute(session, report, Span(user_id, user_id))
    except DatabaseBusy:
        raise
    except Exception as error:  # noqa: BLE001  an edge: the report says so
        kept = keep(error)
        difference = Difference(
            user_id=user_id,
            seq=None,
            kind=NOT_VERIFIABLE,
            expected=None,
            found=f"{kept.error_type}: {kept.message}",
        )
        return Report(users=1, differing_users=1, differences=1, first=[difference])
    return report
