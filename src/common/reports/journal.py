"""`journal`: the whole ledger as plain-text accounting, for beancount or hledger.

At the end of each month the balances are asserted as `movements` and `revenue` have them: figures
from statements other than the lines'. So `bean-check` and `hledger check` audit the ledger.
"""

import datetime as dt
from collections.abc import Iterator, Mapping
from enum import StrEnum

from sqlalchemy.orm import Session

from src.common.reports.journal_lines import (
    ACCOUNTS,
    BALANCES,
    CREDITS,
    DEFERRED,
    HELD,
    DoubleEntry,
    read_double_entries,
)
from src.common.reports.movements import COLUMNS, Movements
from src.common.reports.periods import By, boundaries
from src.common.reports.revenue import Revenue
from src.common.reports.snapshots import Snapshot, first_entry_at
from src.html_pages import in_units

COMMODITY = "CREDITS"
_LONG_AGO = dt.date(1970, 1, 1)
_HELD_COLUMN = [column.name for column in COLUMNS].index("held")

Amounts = Mapping[tuple[str, str], int]
"""By account and currency, or `CREDITS`."""


class Program(StrEnum):
    """What is to read the journal."""

    BEANCOUNT = "beancount"
    HLEDGER = "hledger"


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
    """
    began = first_entry_at(session, until)
    if began is None:
        return
    bounds = boundaries(began - dt.timedelta(microseconds=1), until, By.MONTH, zone)
    asserted = _balances_of_months(
        zone,
        Movements(session, snapshot, bounds),
        Revenue(session, snapshot, bounds, test_money=test_money),
    )
    currencies = sorted({currency for amounts in asserted.values() for _, currency in amounts})
    yield from _declarations(program, currencies)
    coming = iter(sorted(asserted.items()))
    next_end = next(coming, None)
    for entry in read_double_entries(
        session, snapshot, until, zone=str(zone), by_day=by_day, test_money=test_money
    ):
        while next_end is not None and entry.day > next_end[0]:
            yield from _assertion(program, *next_end)
            next_end = next(coming, None)
        yield _written(program, entry)
    while next_end is not None:
        yield from _assertion(program, *next_end)
        next_end = next(coming, None)


def _balances_of_months(
    zone: dt.tzinfo, movements: Movements, revenue: Revenue
) -> dict[dt.date, dict[tuple[str, str], int]]:
    """By a month's last day: what the accounts of users' credits and of deferred revenue have."""
    balances: dict[dt.date, dict[tuple[str, str], int]] = {}
    held: dict[str, int] = {}
    for row in movements.rows():
        _, end, source, *_ = row
        amounts = balances.setdefault(_day_before(end, zone), {})
        held[source] = held.get(source, 0) + row[_HELD_COLUMN]
        amounts[f"{BALANCES}:{source.capitalize()}", CREDITS] = -row[-1]
        amounts[f"{HELD}:{source.capitalize()}", CREDITS] = -held[source]
    for row in revenue.rows():
        _, end, currency, *_ = row
        balances.setdefault(_day_before(end, zone), {})[DEFERRED, currency] = -row[-1]
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


def _written(program: Program, entry: DoubleEntry) -> str:
    lines = "".join(
        f"  {account}  {_quantity(amount, currency)} {_commodity(currency)}\n"
        for (account, currency), amount in entry.lines.items()
    )
    return f"{_heading(program, entry)}\n{lines}"


def _heading(program: Program, entry: DoubleEntry) -> str:
    if program is Program.BEANCOUNT:
        about = '\n  user: "{}"\n  seq: {}'
        narration = f'"{entry.narration}"'
    else:
        about = "  ; user:{}, seq:{}"
        narration = entry.narration
    whose = "" if entry.entry is None else about.format(*entry.entry)
    return f"{entry.day} * {narration}{whose}"


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
