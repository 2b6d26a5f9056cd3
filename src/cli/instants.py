"""Reads instants as people write them: a date, or a date and a time, in a time zone."""

import datetime as dt
from typing import Annotated

import typer

from src.common.exceptions import Invalid
from src.common.time_zones import find_zone

EXAMPLES = "2030-01-31, 2030-01-31 14:00 or 2030-01-31T14:00:00Z"

TimeZone = Annotated[
    str,
    typer.Option(
        "--time-zone",
        metavar="ZONE",
        help="The time zone of instants that do not name theirs, such as Europe/Berlin.",
    ),
]


def instant(option: str, written: str | None, time_zone: str) -> dt.datetime | None:
    """What an option names, in UTC: a date is its first moment, an hour that comes twice the first.

    Raises:
        Invalid: VALIDATION_ERROR, naming the option, with examples.
    """
    if written is None:
        return None
    in_zone = find_zone("--time-zone", time_zone)
    try:
        read = dt.datetime.fromisoformat(written)
        found = (read if read.tzinfo else read.replace(tzinfo=in_zone)).astimezone(dt.UTC)
        is_there = found.astimezone(read.tzinfo or in_zone).replace(tzinfo=None) == _naive(read)
    except (ValueError, OverflowError):
        raise Invalid(
            f"{option}: {written!r} is no instant; write {EXAMPLES}", "VALIDATION_ERROR"
        ) from None
    if not is_there and read.time() != dt.time.min:
        raise Invalid(
            f"{option}: {written!r} is left out by the clocks of {time_zone}, which are put "
            f"forward then; write {EXAMPLES}",
            "VALIDATION_ERROR",
        )
    return found


def _naive(instant: dt.datetime) -> dt.datetime:
    return instant.replace(tzinfo=None)
