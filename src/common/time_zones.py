"""Finds a time zone by its name, as people write it."""

import datetime as dt
from zoneinfo import ZoneInfo

from src.common.exceptions import Invalid

UTC = "UTC"


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
