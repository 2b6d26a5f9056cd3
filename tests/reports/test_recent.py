"""The last days at a glance say what `movements` and `sales` say of the same days."""

import datetime as dt
from collections import defaultdict

import pytest
from sqlalchemy.orm import Session

from src.common.credits.due import expire_due
from src.common.reports.movements import COLUMNS, Movements
from src.common.reports.periods import By, boundaries
from src.common.reports.recent import read_recent_days
from src.common.reports.sales import read_sales
from src.common.reports.snapshots import take_snapshot
from tests.credits.clock import settable_clock
from tests.reports.histories import History

BEGAN = dt.datetime(2026, 3, 25, tzinfo=dt.UTC)
SHOWN = ("sold", "given", "spent", "expired")
PLACES = {column.name: place for place, column in enumerate(COLUMNS)}


@pytest.mark.parametrize("seed", range(3))
def test_the_days_are_those_of_the_reports(db: Session, seed: int) -> None:
    """Once what is due is booked, day by day."""
    with settable_clock(db.connection()):
        history = History(db, seed, start=BEGAN, step=dt.timedelta(hours=1))
        history.go_on(150)
        while expire_due(db):
            pass
        snapshot = take_snapshot(db, now=history.now)
        midnight = (history.now + dt.timedelta(days=1)).replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        days = boundaries(BEGAN, midnight, By.DAY, dt.UTC)
        expected: defaultdict[dt.date, list[int]] = defaultdict(lambda: [0] * len(SHOWN))
        for row in Movements(db, snapshot, days).rows():
            of_day = expected[row[0].date()]
            for index, name in enumerate(SHOWN):
                of_day[index] += row[PLACES[name]]
    last = history.now.date()
    found = read_recent_days(db, snapshot, last, days=len(days) - 1, livemode=True)
    assert {day: [it.sold, it.given, it.spent, it.expired] for day, it in found.items()} == {
        day: expected[day] for day in found
    }
    assert any(it.spent for it in found.values())


def test_purchases_are_counted_by_mode_and_currency(db: Session) -> None:
    """As `sales` counts them, of the real ones."""
    with settable_clock(db.connection()):
        History(db, 1, start=BEGAN, step=dt.timedelta(hours=1)).go_on(150)
    today = dt.datetime.now(dt.UTC).date()  # purchases are noted by the server's own clock
    begin = dt.datetime.combine(today - dt.timedelta(days=1), dt.time(), dt.UTC)
    all_sales = read_sales(db, take_snapshot(db), [begin, begin + dt.timedelta(days=3)])
    sold = [row for row in all_sales if row[4] != "test"]
    days = read_recent_days(db, take_snapshot(db), today, days=2, livemode=True).values()
    assert sum(day.purchases for day in days) == sum(row[5] for row in sold) > 0
    assert sum(sum(day.paid_cents.values()) for day in days) == sum(row[7] for row in sold)
    back = sum(sum(day.reversed_cents.values()) for day in days)
    assert back == sum(row[8] + row[9] for row in sold)
