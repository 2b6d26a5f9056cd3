"""Everybody's notices where groups of users have schemas: each group numbers its own.

A page has the newest of all groups, and those of a group in the order in which it numbered them. So
its cursor says of each group where it is.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from src.common.models.credit_notice import CreditNotice
from src.common.notices.queries import NUMBER_MAX
from src.common.postgres.pagination import Page, decode_number_cursor
from src.common.time_zones import in_order


class _Noted(NamedTuple):
    group: str
    notice: CreditNotice


def read_places(cursor: str | None) -> dict[str, str]:
    """Of each group that the cursor names, the cursor of its own list.

    Raises:
        Invalid: VALIDATION_ERROR, naming `cursor`.
    """
    places: dict[str, str] = {}
    for each in cursor.split(",") if cursor is not None else ():
        group, _, number = each.partition(":")
        decode_number_cursor(number, NUMBER_MAX)
        places[group] = number
    return places


def merge_notices(pages: Mapping[str, Page[CreditNotice]], limit: int) -> Page[CreditNotice]:
    """One page of the groups' pages, each of which has as many where there are as many."""

    def of_group(group: str) -> Iterator[_Noted]:
        return (_Noted(group, notice) for notice in pages[group].items)

    newest_first = heapq.merge(
        *map(of_group, pages), key=lambda each: in_order(each.notice.created_at), reverse=True
    )
    shown = list(islice(newest_first, limit))
    has_more = any(page.next_cursor is not None for page in pages.values())
    has_more = has_more or sum(len(page.items) for page in pages.values()) > limit
    if not has_more:
        return Page([each.notice for each in shown], None)
    # Of whom nothing was shown: what is written from now on is on no later page either.
    places = {group: page.items[0].number + 1 if page.items else 1 for group, page in pages.items()}
    places |= {each.group: each.notice.number for each in shown}
    cursor = ",".join(f"{group}:{number}" for group, number in places.items())
    return Page([each.notice for each in shown], cursor)


def oldest_first(notices: Iterable[CreditNotice]) -> list[CreditNotice]:
    """Several groups' notices by when they were written; those of an instant stay as they are."""
    return sorted(notices, key=lambda notice: in_order(notice.created_at))
