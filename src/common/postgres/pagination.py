"""Keyset pagination: a page is a range after the last row seen, at the same cost at any depth."""

import base64
import binascii
import datetime as dt
import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from src.common.exceptions import Invalid
from src.common.time_zones import in_order

T = TypeVar("T")
Place = TypeVar("Place", bound=tuple[Any, ...])

PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 200
_NUMBER = re.compile(r"[1-9][0-9]{0,18}")
_NUMBER_MAX = 2**31 - 1
_INSTANT = "%Y-%m-%dT%H:%M:%S.%f%z"


@dataclass(frozen=True)
class Page(Generic[T]):
    """Rows in order, and where the next page begins; `next_cursor` is None on the last page."""

    items: Sequence[T]
    next_cursor: str | None


def page_of(
    rows: Sequence[T], limit: int, place: Callable[[T], tuple[dt.datetime, uuid.UUID]]
) -> Page[T]:
    """The page of `limit` rows; `rows` has one more where there is a next page."""
    if len(rows) <= limit:
        return Page(rows, None)
    return Page(rows[:limit], encode_cursor(*place(rows[limit - 1])))


def merge_pages(
    pages: Iterable[Page[T]],
    limit: int,
    place: Callable[[T], Place],
    *,
    read_cursor: Callable[[str], Place],
    write_cursor: Callable[..., str],
) -> Page[T]:
    """One page of several lists, each of which has the same order, the greatest place first.

    A place begins with an instant; that of a cursor is in UTC.
    What comes after the end of any of their pages is left to the next one.
    """
    found = list(pages)
    ends = [read_cursor(each.next_cursor) for each in found if each.next_cursor is not None]
    bound = max(ends, default=None)

    def in_place(item: T) -> tuple[Any, ...]:
        instant, *ids = place(item)
        return (in_order(instant), *ids)

    items = sorted((item for page in found for item in page.items), key=in_place, reverse=True)
    known = [item for item in items if bound is None or in_place(item) >= bound]
    if len(known) > limit:
        return Page(known[:limit], write_cursor(*place(known[limit - 1])))
    return Page(known, None if bound is None else write_cursor(*bound))


def encode_cursor(instant: dt.datetime, row_id: uuid.UUID) -> str:
    """The place right after the row with this instant and id, as text that survives a URL."""
    written = f"{instant.isoformat(timespec='microseconds')}|{row_id}"
    return base64.urlsafe_b64encode(written.encode()).decode()


def decode_cursor(cursor: str) -> tuple[dt.datetime, uuid.UUID]:
    """The instant and id a cursor was made of.

    Raises:
        Invalid: VALIDATION_ERROR, this is no cursor of ours.
    """
    try:
        written = base64.urlsafe_b64decode(cursor.encode("ascii")).decode("ascii")
        instant, row_id = written.split("|")
        return dt.datetime.strptime(instant, _INSTANT).astimezone(dt.UTC), uuid.UUID(row_id)
    except (ValueError, binascii.Error, OverflowError):
        raise _not_a_cursor() from None


def decode_number_cursor(cursor: str | None, greatest: int = _NUMBER_MAX) -> int:
    """The number, `greatest` at most, that a page of numbered rows ends before.

    The first page ends before any.

    Raises:
        Invalid: VALIDATION_ERROR, this is no cursor of ours.
    """
    if cursor is None:
        return greatest
    if not _NUMBER.fullmatch(cursor) or int(cursor) > greatest:
        raise _not_a_cursor()
    return int(cursor)


def _not_a_cursor() -> Invalid:
    return Invalid(
        "cursor: not a cursor of this list; leave it out to start at the first page",
        "VALIDATION_ERROR",
        field="cursor",
    )
