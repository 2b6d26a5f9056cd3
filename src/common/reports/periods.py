"""Days, weeks and months of a time zone, as the instants that separate them: pure."""

import datetime as dt
from collections.abc import Iterator
from enum import StrEnum

from src.common.exceptions import Invalid

PERIODS_MAX = 5_000
"""Of one report: more days than in thirteen years."""


class By(StrEnum):
    """How long a period is; `ENTRY` is for the journal alone."""

    ENTRY = "entry"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def boundaries(
    since: dt.datetime, until: dt.datetime, by: By | None, zone: dt.tzinfo
) -> list[dt.datetime]:
    """The instants, in UTC, that begin and end each period from `since` to `until`.

    The first is `since` and the last is `until`. In between a period begins where a day does in
    `zone`, a week with its Monday, a month with its first day. So a day has 23 or 25 hours where
    the clocks change, and the first and the last period may be shorter. Without `by` it is one.

    Raises:
        Invalid: VALIDATION_ERROR, `until` is not after `since`, or there are too many periods.
    """
    first, last = since.astimezone(dt.UTC), until.astimezone(dt.UTC)
    if last <= first:
        raise Invalid("to: must be after from", "VALIDATION_ERROR", field="to")
    found = [first]
    if by is not None:
        for instant in _beginnings(first, by, zone):
            if instant >= last:
                break
            if instant > found[-1]:  # a day that a zone leaves out has no length
                found.append(instant)
            if len(found) > PERIODS_MAX:
                raise Invalid(
                    f"by: there are more than {PERIODS_MAX} periods from {since:%Y-%m-%d} to "
                    f"{until:%Y-%m-%d}; ask for longer ones",
                    "VALIDATION_ERROR",
                    field="by",
                )
    return [*found, last]


def beginning_of_month(instant: dt.datetime, zone: dt.tzinfo) -> dt.datetime:
    """The first instant of the month that this one is in, in UTC."""
    return _midnight(instant.astimezone(zone).date().replace(day=1), zone)


def _beginnings(first: dt.datetime, by: By, zone: dt.tzinfo) -> Iterator[dt.datetime]:
    """Where periods begin, the first of them not after `first`."""
    day = first.astimezone(zone).date()
    if by is By.WEEK:
        day -= dt.timedelta(days=day.weekday())
    elif by is By.MONTH:
        day = day.replace(day=1)
    while True:
        yield _midnight(day, zone)
        try:
            day = _next(day, by)
        except OverflowError:  # after the last day that a calendar has
            return


def _next(day: dt.date, by: By) -> dt.date:
    if by is By.MONTH:
        return (day + dt.timedelta(days=31)).replace(day=1)
    return day + dt.timedelta(days=7 if by is By.WEEK else 1)


def _midnight(day: dt.date, zone: dt.tzinfo) -> dt.datetime:
    """The first instant of a day; where clocks leave midnight out, the one they jump at."""
    return dt.datetime.combine(day, dt.time(), zone).astimezone(dt.UTC)
