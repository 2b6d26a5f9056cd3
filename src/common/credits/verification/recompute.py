"""Recomputing users' books in a session, all at once or each for themselves.

A user whose books cannot even be read must not keep the others from being verified.
"""

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ARRAY, TextualSelect, Uuid, bindparam, text
from sqlalchemy.orm import Session

from src.common.credits.verification.comparison import compare_user, is_unopened
from src.common.credits.verification.report import Difference, Report
from src.common.credits.verification.stored import (
    RawRows,
    fetch_rows,
    portions_of,
    read_rows,
    versions_of,
)
from src.common.credits.verify_statement import ORPHANS, STATEMENT
from src.common.exceptions import DatabaseBusy
from src.common.kept_errors import keep
from src.common.silent_servers import lift_time_limits

LOWEST, HIGHEST = uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)
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
_Range = tuple[uuid.UUID, uuid.UUID]


def recompute(
    session: Session,
    report: Report,
    user_ids: Sequence[uuid.UUID],
    *,
    orphans_within: _Range | None = None,
) -> None:
    """Add to the report what these users' books show, and the books without a user in a range.

    The range includes both its ends.
    """
    # A single user's journal may be long, and whoever verifies waits for it.
    lift_time_limits(session)
    portions, too_long = portions_of(session.execute(versions_of(user_ids)).all())
    differing = [
        user_id
        for portion in portions
        for user_id in replay_rows(report, fetch_rows(session, portion))
    ]
    add_sums(session, report, differing, too_long)
    if orphans_within is not None:
        first, last = orphans_within
        for orphan in _differences(session, _ORPHANS, {"first": first, "last": last}):
            report.add([orphan])


def recompute_one_by_one(
    session: Session,
    report: Report,
    user_ids: Sequence[uuid.UUID],
    *,
    orphans_within: _Range | None = None,
) -> None:
    """As `recompute`, each user for themselves; an error is a difference of theirs."""
    for user_id in user_ids:
        report.merge(_recomputed(session, user_id, [user_id], None))
    if orphans_within is not None:
        report.merge(_recomputed(session, orphans_within[0], [], orphans_within))


def replay_rows(report: Report, rows: Sequence[RawRows]) -> list[uuid.UUID]:
    """Add to the report what the rules say of these users' rows; whose differ."""
    differing: list[uuid.UUID] = []
    for each in read_rows(rows):
        report.users += 1
        report.without_opening_entry += is_unopened(each)
        if found := compare_user(each):
            differing.append(each.user_id)
            report.add(found)
    return differing


def add_sums(
    session: Session,
    report: Report,
    differing: Sequence[uuid.UUID],
    too_long: Sequence[uuid.UUID],
) -> None:
    """Add to the report what does not add up for users whose rows differ or were not replayed."""
    lift_time_limits(session)
    for difference in _differences(session, _SUMS, {"user_ids": differing}) if differing else ():
        report.add([difference], users=0)
    for user_id in too_long:
        report.users += 1
        report.not_replayed += 1
        found = list(_differences(session, _SUMS, {"user_ids": [user_id]}))
        report.add(found, users=bool(found))


def _differences(
    session: Session, statement: TextualSelect, parameters: dict[str, Any]
) -> Iterator[Difference]:
    rows = session.execute(statement, parameters, execution_options={"yield_per": _ROWS})
    for row in rows.mappings():
        yield Difference(**row)


def _recomputed(
    session: Session,
    blamed: uuid.UUID,
    user_ids: Sequence[uuid.UUID],
    orphans_within: _Range | None,
) -> Report:
    report = Report()
    try:
        with session.begin_nested():
            recompute(session, report, user_ids, orphans_within=orphans_within)
    except DatabaseBusy:
        raise
    except Exception as error:  # noqa: BLE001  an edge: the report says so
        kept = keep(error)
        difference = Difference(
            user_id=blamed,
            seq=None,
            kind=NOT_VERIFIABLE,
            expected=None,
            found=f"{kept.error_type}: {kept.message}",
        )
        return Report(users=len(user_ids), differing_users=1, differences=1, first=[difference])
    return report
