"""Every report there is: its name, its columns, what it takes, and how it is read."""

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy.orm import Session

from src.common.exceptions import Invalid
from src.common.reports import liability, movements
from src.common.reports.columns import Column, Figures
from src.common.reports.liability import Liability
from src.common.reports.movements import Movements
from src.common.reports.periods import By, beginning_of_month, boundaries
from src.common.reports.snapshots import Snapshot, take_snapshot
from src.common.reports.ties import require_equal, total_of_balances


class ReportName(StrEnum):
    """What can be asked for."""

    MOVEMENTS = "movements"
    LIABILITY = "liability"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which report, of when."""

    name: ReportName
    since: dt.datetime | None = None
    """With a time zone; None is the beginning of the month that `until` is in."""
    until: dt.datetime | None = None
    """With a time zone; None is now, and so is what lies in the future."""
    by: By | None = None
    """How long a period is; None is all in one."""
    zone: dt.tzinfo = dt.UTC
    """Where days begin."""

    @property
    def report(self) -> "Report":
        """The report that is asked for."""
        return REPORTS[self.name]


@dataclass(frozen=True, kw_only=True)
class Report:
    """One kind of report."""

    meaning: str
    columns: tuple[Column, ...]
    rows: Callable[[Session, Snapshot, Wanted], Iterator[tuple[Any, ...]]]
    has_beginning: bool = True
    """Whether it is of a time; else it is of one instant."""
    has_periods: bool = True


def read_report(session: Session, wanted: Wanted, *, now: dt.datetime | None = None) -> Figures:
    """Read a report, and check that its figures tie.

    Args:
        session: In a database transaction that `begin_report` began. It stays open until the rows
            have been read.
        wanted: Which report, of when.
        now: Replaces the database's clock, in tests.

    Raises:
        DatabaseBusy: a passing condition of the database.
        FiguresDiffer: FIGURES_DIFFER, the ledger contradicts itself.
        Invalid: VALIDATION_ERROR, naming what the report does not take.
    """
    report = wanted.report
    if wanted.since is not None and not report.has_beginning:
        raise _not_taken("from", wanted)
    if wanted.by is not None and not report.has_periods:
        raise _not_taken("by", wanted)
    snapshot = take_snapshot(session, now=now)
    return Figures(columns=report.columns, rows=report.rows(session, snapshot, wanted))


def _not_taken(field: str, wanted: Wanted) -> Invalid:
    return Invalid(f"{field}: {wanted.name} does not take it", "VALIDATION_ERROR", field=field)


def _until(snapshot: Snapshot, wanted: Wanted) -> dt.datetime:
    return min(wanted.until or snapshot.now, snapshot.now)


def _bounds(snapshot: Snapshot, wanted: Wanted) -> list[dt.datetime]:
    until = _until(snapshot, wanted)
    since = wanted.since or beginning_of_month(until - dt.timedelta(microseconds=1), wanted.zone)
    return boundaries(since, until, wanted.by, wanted.zone)


def _movements(session: Session, snapshot: Snapshot, wanted: Wanted) -> Iterator[tuple[Any, ...]]:
    bounds = _bounds(snapshot, wanted)
    found = Movements(session, snapshot, bounds)
    outstanding = Liability(session, snapshot, bounds[-1])
    balances = total_of_balances(session, snapshot, bounds[-1])
    require_equal(bounds[-1], balances, movements=found.closing, liability=outstanding.credits)
    return found.rows()


def _liability(session: Session, snapshot: Snapshot, wanted: Wanted) -> Iterator[tuple[Any, ...]]:
    until = _until(snapshot, wanted)
    found = Liability(session, snapshot, until)
    require_equal(until, total_of_balances(session, snapshot, until), liability=found.credits)
    return found.rows()


REPORTS: dict[ReportName, Report] = {
    ReportName.MOVEMENTS: Report(
        meaning="Credits: what came into the balances and what left them, by source.",
        columns=movements.COLUMNS,
        rows=_movements,
    ),
    ReportName.LIABILITY: Report(
        meaning="What customers have at an instant, by source and age, and what they paid for it.",
        columns=liability.COLUMNS,
        rows=_liability,
        has_beginning=False,
        has_periods=False,
    ),
}
