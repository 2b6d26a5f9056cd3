"""Every report there is: its name, its columns, what it takes, and how it is read."""

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import IO, Any

from sqlalchemy.orm import Session

from src.common.exceptions import Invalid
from src.common.reports import liability, movements, payments, revenue, sales, users
from src.common.reports.columns import Column, Figures
from src.common.reports.formats import Format, write
from src.common.reports.journal import journal
from src.common.reports.journal_lines import Program
from src.common.reports.liability import Liability
from src.common.reports.movements import Movements
from src.common.reports.payments import read_payments
from src.common.reports.periods import By, beginning_of_month, boundaries
from src.common.reports.plots import Panel, Picture, Plot, draw
from src.common.reports.revenue import Revenue
from src.common.reports.sales import read_sales
from src.common.reports.snapshots import Snapshot, Tell, take_snapshot
from src.common.reports.ties import require_equal, total_of_balances
from src.common.reports.users import UserFilter, read_users


class ReportName(StrEnum):
    """What can be asked for."""

    MOVEMENTS = "movements"
    LIABILITY = "liability"
    REVENUE = "revenue"
    SALES = "sales"
    PAYMENTS = "payments"
    USERS = "users"
    JOURNAL = "journal"


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
    test_money: bool = False
    """Whether, of money, only what moved in Stripe's test mode; else only what really moved."""
    users: UserFilter | None = None
    """Which users, of the report on them; None is all."""

    @property
    def report(self) -> "Report":
        """The report that is asked for; the journal has no columns, and is none of these."""
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
    has_end: bool = True
    """Whether it is of a past instant where one is given; else it is of now."""
    values_credits: bool = False
    """Whether it says what was paid for credits: then in real money, or in test mode's."""
    filters_users: bool = False
    plot: Plot | None = None
    """What of it can be drawn."""


def read_report(
    session: Session,
    wanted: Wanted,
    *,
    svg: Picture | None = None,
    now: dt.datetime | None = None,
    tell: Tell | None = None,
) -> Figures:
    """Read a report, and check that its figures tie.

    Args:
        session: In a database transaction that `begin_report` began. It stays open until the rows
            have been read.
        wanted: Which report, of when.
        svg: Gets a picture of the figures.
        now: Replaces the database's clock, in tests.
        tell: Is told of each group of users that was read.

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
    if wanted.by is By.ENTRY:
        raise Invalid("by: entry is for the journal", "VALIDATION_ERROR", field="by")
    if wanted.until is not None and not report.has_end:
        raise _not_taken("to", wanted)
    if wanted.test_money and not report.values_credits:
        raise _not_taken("test_money", wanted)
    if wanted.users is not None and not report.filters_users:
        raise Invalid(
            f"with_balance, with_debt and idle_since go with users, not {wanted.name}",
            "VALIDATION_ERROR",
        )
    if svg is not None and report.plot is None:
        raise _not_taken("svg", wanted)
    rows = report.rows(session, take_snapshot(session, now=now, tell=tell), wanted)
    if svg is not None and report.plot is not None:
        few = list(rows)
        draw(report.plot, report.columns, few, svg, zone=wanted.zone)
        rows = iter(few)
    return Figures(columns=report.columns, rows=rows)


def write_report(
    session: Session,
    wanted: Wanted,
    format_: Format,
    file: IO[bytes],
    *,
    bom: bool = False,
    svg: Picture | None = None,
    now: dt.datetime | None = None,
    tell: Tell | None = None,
) -> None:
    """Read a report, or the journal, and write it into a file.

    Args:
        session: As of `read_report`.
        wanted: Which report, of when.
        format_: What to write: the journal for one of its programs, all others as figures.
        file: Open, in binary; a workbook wants one that can be sought.
        bom: Whether CSV begins with a byte order mark.
        svg: Gets a picture of the figures.
        now: Replaces the database's clock, in tests.
        tell: Is told of each group of users that was read.

    Raises:
        DatabaseBusy, FiguresDiffer: as of `read_report`.
        Invalid: VALIDATION_ERROR, naming what the report does not take.
    """
    is_journal = wanted.name is ReportName.JOURNAL
    if is_journal != (format_ in {Format.BEANCOUNT, Format.HLEDGER}):
        raise Invalid(
            "format: the journal is for beancount or hledger, and nothing else is",
            "VALIDATION_ERROR",
            field="format",
        )
    if bom and format_ is not Format.CSV:
        raise Invalid("bom: goes with csv", "VALIDATION_ERROR", field="bom")
    if not is_journal:
        figures = read_report(session, wanted, svg=svg, now=now, tell=tell)
        write(figures, format_, file, zone=wanted.zone, bom=bom)
        return
    if wanted.since is not None:
        raise _not_taken("from", wanted)
    if svg is not None:
        raise _not_taken("svg", wanted)
    if wanted.by not in {None, By.ENTRY, By.DAY}:
        raise Invalid("by: the journal is by entry or day", "VALIDATION_ERROR", field="by")
    snapshot = take_snapshot(session, now=now, tell=tell)
    for line in journal(
        session,
        snapshot,
        Program(format_),
        until=_until(snapshot, wanted),
        zone=wanted.zone,
        by_day=wanted.by is By.DAY,
        test_money=wanted.test_money,
    ):
        file.write(f"{line}\n".encode())


def _not_taken(field: str, wanted: Wanted) -> Invalid:
    said = f"{field}: the report {wanted.name} has no such option"
    return Invalid(said, "VALIDATION_ERROR", field=field)


def _until(snapshot: Snapshot, wanted: Wanted) -> dt.datetime:
    return min(wanted.until or snapshot.now, snapshot.now)


def _bounds(snapshot: Snapshot, wanted: Wanted) -> list[dt.datetime]:
    until = _until(snapshot, wanted)
    try:
        since = wanted.since or beginning_of_month(
            until - dt.timedelta(microseconds=1), wanted.zone
        )
        return boundaries(since, until, wanted.by, wanted.zone)
    except OverflowError:  # at the ends of the calendar, which is another day elsewhere
        field = "to" if wanted.since is None else "from"
        raise Invalid(
            f"{field}: is too near the first or the last day of the calendar",
            "VALIDATION_ERROR",
            field=field,
        ) from None


def _movements(session: Session, snapshot: Snapshot, wanted: Wanted) -> Iterator[tuple[Any, ...]]:
    bounds = _bounds(snapshot, wanted)
    found = Movements(session, snapshot, bounds)
    outstanding = Liability(session, snapshot, bounds[-1])
    balances = total_of_balances(session, snapshot, bounds[-1])
    require_equal(bounds[-1], balances, movements=found.closing, liability=outstanding.credits)
    return found.rows()


def _liability(session: Session, snapshot: Snapshot, wanted: Wanted) -> Iterator[tuple[Any, ...]]:
    until = _until(snapshot, wanted)
    found = Liability(session, snapshot, until, test_money=wanted.test_money)
    require_equal(until, total_of_balances(session, snapshot, until), liability=found.credits)
    return found.rows()


def _revenue(session: Session, snapshot: Snapshot, wanted: Wanted) -> Iterator[tuple[Any, ...]]:
    bounds = _bounds(snapshot, wanted)
    found = Revenue(session, snapshot, bounds, test_money=wanted.test_money)
    owed = Liability(session, snapshot, bounds[-1], test_money=wanted.test_money).cents
    require_equal(bounds[-1], None, revenue=found.closing, liability=owed)
    return found.rows()


def _sales(session: Session, snapshot: Snapshot, wanted: Wanted) -> Iterator[tuple[Any, ...]]:
    return read_sales(session, snapshot, _bounds(snapshot, wanted))


def _payments(session: Session, snapshot: Snapshot, wanted: Wanted) -> Iterator[tuple[Any, ...]]:
    since, until = _bounds(snapshot, wanted)
    return read_payments(session, snapshot, since, until)


def _users(session: Session, snapshot: Snapshot, wanted: Wanted) -> Iterator[tuple[Any, ...]]:
    return read_users(session, snapshot, wanted.users or UserFilter())


REPORTS: dict[ReportName, Report] = {
    ReportName.MOVEMENTS: Report(
        meaning="Credits: what came into the balances and what left them, by source.",
        columns=movements.COLUMNS,
        rows=_movements,
        plot=Plot(
            title="Credits in balances, by source",
            panels=(
                Panel(
                    value="closing",
                    series=("source",),
                    label="credits in balances",
                    parts=movements.PARTS,
                ),
            ),
        ),
    ),
    ReportName.LIABILITY: Report(
        meaning="What customers have at an instant, by source and age, and what they paid for it.",
        columns=liability.COLUMNS,
        rows=_liability,
        has_beginning=False,
        has_periods=False,
        values_credits=True,
        plot=Plot(
            title="What customers have in their balances, by age (held credits not included)",
            panels=(
                Panel(value="credits", series=("source",), label="credits"),
                Panel(
                    value="value_cents",
                    series=("currency",),
                    label="deferred revenue, in the currency",
                    is_money=True,
                ),
            ),
            categories=("age_days", tuple(name for _, name in liability.AGES)),
        ),
    ),
    ReportName.REVENUE: Report(
        meaning="What became of what was paid: owed, spent, expired, refunded, disputed.",
        columns=revenue.COLUMNS,
        rows=_revenue,
        values_credits=True,
        plot=Plot(
            title="Deferred revenue, held credits included",
            panels=(
                Panel(
                    value="closing_cents",
                    series=("currency",),
                    label="deferred revenue, in the currency",
                    parts=revenue.PARTS,
                    is_money=True,
                ),
            ),
        ),
    ),
    ReportName.SALES: Report(
        meaning="Purchases and the money that went back of them, by package and currency.",
        columns=sales.COLUMNS,
        rows=_sales,
        plot=Plot(
            title="Net sales: paid, less what was refunded and disputed by now",
            panels=(
                Panel(
                    value="net_cents",
                    series=("package_id", "currency", "livemode"),
                    label="net sales, in the currency",
                    parts=sales.PARTS,
                    is_money=True,
                ),
            ),
        ),
    ),
    ReportName.PAYMENTS: Report(
        meaning="Each purchase, and what became of its credits by now.",
        columns=payments.COLUMNS,
        rows=_payments,
        has_periods=False,
    ),
    ReportName.USERS: Report(
        meaning="What each user has and owes now, and when they last did something.",
        columns=users.COLUMNS,
        rows=_users,
        has_beginning=False,
        has_periods=False,
        has_end=False,
        filters_users=True,
    ),
}
