"""Days, weeks and months begin where they do for people."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.common.exceptions import Invalid
from src.common.reports.periods import By, beginning_of_month, boundaries

BERLIN = ZoneInfo("Europe/Berlin")
INSTANTS = st.integers(631_152_000, 2_208_988_800).map(
    lambda seconds: dt.datetime.fromtimestamp(seconds, dt.UTC)
)
ZONES = st.sampled_from(
    [
        "UTC",
        "Europe/Berlin",
        "America/Sao_Paulo",
        "Africa/Cairo",
        "Australia/Lord_Howe",
        "Pacific/Apia",
    ]
).map(ZoneInfo)


def at(year: int, month: int, day: int, hour: int = 0) -> dt.datetime:
    """In UTC."""
    return dt.datetime(year, month, day, hour, tzinfo=dt.UTC)


def test_days_have_23_and_25_hours() -> None:
    """Where clocks are put forward, and back."""
    spring = boundaries(at(2026, 3, 28, 23), at(2026, 3, 30, 22), By.DAY, BERLIN)
    assert spring == [at(2026, 3, 28, 23), at(2026, 3, 29, 22), at(2026, 3, 30, 22)]
    autumn = boundaries(at(2026, 10, 24, 22), at(2026, 10, 25, 23), By.DAY, BERLIN)
    assert autumn == [at(2026, 10, 24, 22), at(2026, 10, 25, 23)]


def test_a_day_without_midnight_begins_where_the_clocks_jump() -> None:
    """In Cairo on 28 April 2023, at 22:00 UTC."""
    days = boundaries(at(2023, 4, 27, 12), at(2023, 4, 28, 12), By.DAY, ZoneInfo("Africa/Cairo"))
    assert days == [at(2023, 4, 27, 12), at(2023, 4, 27, 22), at(2023, 4, 28, 12)]


def test_a_day_that_is_left_out_is_no_period() -> None:
    """Samoa went from 29 to 31 December 2011."""
    days = boundaries(at(2011, 12, 29, 12), at(2011, 12, 31, 12), By.DAY, ZoneInfo("Pacific/Apia"))
    assert days == [
        at(2011, 12, 29, 12),
        at(2011, 12, 30, 10),
        at(2011, 12, 31, 10),
        at(2011, 12, 31, 12),
    ]


def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    """The first and the last may be shorter."""
    weeks = boundaries(at(2026, 11, 4), at(2026, 11, 18), By.WEEK, dt.UTC)
    assert weeks == [at(2026, 11, 4), at(2026, 11, 9), at(2026, 11, 16), at(2026, 11, 18)]
    months = boundaries(at(2026, 12, 15), at(2027, 2, 1), By.MONTH, dt.UTC)
    assert months == [at(2026, 12, 15), at(2027, 1, 1), at(2027, 2, 1)]
    assert beginning_of_month(at(2026, 10, 31, 23), BERLIN) == at(2026, 10, 31, 23)


@given(INSTANTS, st.timedeltas(dt.timedelta(seconds=1), dt.timedelta(days=400)), ZONES)
def test_periods_follow_each_other(
    since: dt.datetime, length: dt.timedelta, zone: dt.tzinfo
) -> None:
    """From the first instant to the last, each later than the one before, in any zone."""
    for by in (None, By.DAY, By.WEEK, By.MONTH):
        found = boundaries(since, since + length, by, zone)
        assert (found[0], found[-1]) == (since, since + length)
        assert found == sorted(set(found))


@pytest.mark.parametrize(
    ("since", "until", "field"),
    [(at(2026, 1, 2), at(2026, 1, 2), "to"), (at(1000, 1, 1), at(2026, 1, 1), "by")],
)
def test_what_has_no_periods_is_refused(since: dt.datetime, until: dt.datetime, field: str) -> None:
    """The field is named."""
    with pytest.raises(Invalid) as refused:
        boundaries(since, until, By.DAY, dt.UTC)
    assert refused.value.details["field"] == field
