"""Finds a time zone by its name, as people write it, and puts instants in their order."""

import datetime as dt
from zoneinfo import ZoneInfo

from src.common.exceptions import Invalid

UTC = "UTC"


def in_order(instant: dt.datetime) -> dt.datetime:
    """The same instant, as what to compare it by.

    Python compares two of one zone by what its clocks show, and in autumn they show an hour twice.
    """
    return instant.astimezone(dt.UTC)


def find_zone(field: str, name: str) -> dt.tzinfo:
    """The time zone of this name; `field` is what the caller calls it.

    Raises:
        Invalid: VALIDATION_ERROR, naming the field: there is none.
    """
    if name == UTC:  # which needs no database of zones
        return dt.UTC
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # OSError: a folder of them, such as Europe
        raise Invalid(
            f"{field}: {name!r} is no time zone such as Europe/Berlin or UTC",
            "VALIDATION_ERROR",
            field=field,
        ) from None
