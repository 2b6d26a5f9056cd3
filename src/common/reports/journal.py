"""`journal`: the whole ledger as plain-text accounting, for beancount or hledger.

At the end of each month the balances are asserted as `movements` and `revenue` have them, and what
is asserted last is what `liability` and the balances say: figures from statements other than the
lines'. So `bean-check` and `hledger check` audit the ledger.
"""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy.orm import Session

from src.common.reports.journal_accounts import ACCOUNTS, BALANCES, DEFERRED, HELD, of_source
from src.common.reports.journal_lines import COMMODITY, Entries, Program
from src.common.reports.liability import Liability
from src.common.reports.movements import COLUMNS, Movements
from src.common.reports.periods import By, boundaries
from src.common.reports.snapshots import Snapshot, first_entry_at
from src.common.reports.ties import require_equal, total_of_balances
from src.html_pages import in_units

CREDITS = ""
"""In place of a currency."""
_LONG_AGO = dt.date(1970, 1, 1)
_HELD_COLUMN = [column.name for column in COLUMNS].index("held")

Amounts = Mapping[tuple[str, str], int]
"""By account and currency, or `CREDITS`."""


def journal(
    session: Session,
    snapshot: Snapshot,
    program: Program,
    *,
    until: dt.datetime,
    zone: dt.tzinfo,
    by_day: bool,
    test_money: bool = False,
) -> Iterator[str]:
    """The journal from the first entry to `until`, in pieces of lines, read while it is iterated.

    All credits are in it; of money what really moved, or with `test_money` only what moved in
    Stripe's test mode.

    Raises:
        DatabaseBusy: a passing condition of the database.
        FiguresDiffer: FIGURES_DIFFER, the ledger contradicts itself.
        Invalid: VALIDATION_ERROR, PostgreSQL does not know the time zone.
    """
    began = first_entry_at(session, snapshot, until)
    if began is None:
        return
    bounds = boundaries(began - dt.timedelta(microseconds=1), until, By.MONTH, zone)
    movements = Movements(session, snapshot, bounds)
    outstanding = Liability(session, snapshot, until, test_money=test_money)
    balances = total_of_balances(session, snapshot, until)
    require_equal(until, balances, journal=movements.closing, liability=outstanding.credits)
    entries = Entries(
        session,
        snapshot,
        program,
        bounds,
        zone=str(zone),
        by_day=by_day,
        test_money=test_money,
    )
    owed = {currency: cents[-1] for currency, cents in entries.owed.items() if cents[-1]}
    require_equal(until, None, journal=owed, liability=outstanding.cents)
    yield from _declarations(program, [CREDITS, *entries.owed])
    coming = iter(_balances_of_months(zone, bounds, movements, entries.owed).items())
    next_end = next(coming, None)
    for day, written in entries:
        while next_end is not None and day > next_end[0]:
            yield from _assertion(program, *next_end)
            next_end = next(coming, None)
        yield written
    while next_end is not None:
        yield from _assertion(program, *next_end)
        next_end = next(coming, None)


def _balances_of_months(
    zone: dt.tzinfo,
    bounds: Sequence[dt.datetime],
    movements: Movements,
    owed: Mapping[str, Sequence[int]],
) -> dict[dt.date, dict[tuple[str, str], int]]:
    """By a month's last day: what the accounts of users' credits and of deferred revenue have."""
    ends = [_day_before(end, zone) for end in bounds[1:]]
    balances: dict[dt.date, dict[tuple[str, str], int]] = {day: {} for day in ends}
    held: dict[str, int] = {}
    for row in movements.rows():
        _, end, source, *_ = row
        amounts = balances[_day_before(end, zone)]
        held[source] = held.get(source, 0) + row[_HELD_COLUMN]
        amounts[of_source(BALANCES, source), CREDITS] = -row[-1]
        amounts[of_source(HELD, source), CREDITS] = -held[source]
    for currency, cents in owed.items():
        for day, owed_then in zip(ends, cents, strict=True):
            balances[day][DEFERRED, currency] = -owed_then
    return balances


def _day_before(instant: dt.datetime, zone: dt.tzinfo) -> dt.date:
    """The day that ends with this instant, or that it is in."""
    return (instant - dt.timedelta(microseconds=1)).astimezone(zone).date()


def _declarations(program: Program, currencies: list[str]) -> Iterator[str]:
    for currency in currencies:
        name, example = _commodity(currency), _quantity(0, currency)
        if program is Program.BEANCOUNT:
            yield f"{_LONG_AGO} commodity {name}"
        else:
            yield f"commodity {example}{'' if '.' in example else '.'} {name}"
    for account in ACCOUNTS:
        if program is Program.BEANCOUNT:
            yield f"{_LONG_AGO} open {account}"
        else:
            yield f"account {account}"
    yield ""


def _assertion(program: Program, day: dt.date, amounts: Amounts) -> Iterator[str]:
    """Of the balances at the end of a day."""
    if program is Program.BEANCOUNT:  # which takes them for those at a day's beginning
        day += dt.timedelta(days=1)
        for (account, currency), amount in sorted(amounts.items()):
            quantity = _quantity(amount, currency)
            yield f"{day} balance {account}  {quantity} {_commodity(currency)}"
    else:
        yield f"{day} * balances"
        for (account, currency), amount in sorted(amounts.items()):
            nothing, name = _quantity(0, currency), _commodity(currency)
            yield f"  {account}  {nothing} {name} = {_quantity(amount, currency)} {name}"
    yield ""


def _commodity(currency: str) -> str:
    return COMMODITY if currency == CREDITS else currency.upper()


def _quantity(amount: int, currency: str) -> str:
    return str(amount) if currency == CREDITS else in_units(amount, currency).replace(",", "")
