"""What groups have is merged by instants: in autumn the clocks of a zone show one hour twice."""

import datetime as dt
import re
import uuid
from collections.abc import Iterator
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.common.models.credit_notice import CreditNotice
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.notices.everybodys import merge_notices, oldest_first
from src.common.postgres.pagination import (
    Page,
    decode_cursor,
    encode_cursor,
    merge_pages,
    page_of,
)
from src.common.postgres.routes import routed_to_schema
from src.common.purchases.unmatched import oldest
from src.common.reports.journal_lines import Entries, Program
from src.common.reports.snapshots import begin_report, take_snapshot
from src.local_postgres import ConnectionParameters
from tests.credits.books import grant
from tests.credits.clock import set_clock, settable_clock
from tests.models.examples import a_user
from tests.sharding.conftest import GROUPS

BERLIN = ZoneInfo("Europe/Berlin")
BEGAN = dt.datetime(2026, 10, 24, 23, 40, tzinfo=dt.UTC)
INSTANTS = [(BEGAN + dt.timedelta(minutes=20 * step)).astimezone(BERLIN) for step in range(9)]
"""From 01:40 to 03:20, as psycopg returns them there: after 02:40 comes 02:00."""
DIVIDED = INSTANTS[::3], INSTANTS[1::3], INSTANTS[2::3]
"""What each of three groups has, by turns."""


class Row(NamedTuple):
    """What a list has of one instant."""

    created_at: dt.datetime
    row_id: uuid.UUID = uuid.UUID(int=1)


def pages_of_all(limit: int) -> Iterator[Page[Row]]:
    """Page after page of the groups' lists, each of which is as PostgreSQL gives it."""
    cursor: str | None = None
    while True:
        after = None if cursor is None else decode_cursor(cursor)
        pages: list[Page[Row]] = []
        for group in DIVIDED:
            rows = [Row(each) for each in group[::-1] if after is None or is_before(each, *after)]
            pages.append(page_of(rows[: limit + 1], limit, place_of))
        page = merge_pages(
            pages, limit, place_of, read_cursor=decode_cursor, write_cursor=encode_cursor
        )
        yield page
        cursor = page.next_cursor
        if cursor is None:
            return


def place_of(row: Row) -> tuple[dt.datetime, uuid.UUID]:
    """By which the lists are in order."""
    return row.created_at, row.row_id


def is_before(each: dt.datetime, instant: dt.datetime, row_id: uuid.UUID) -> bool:
    """As PostgreSQL compares rows."""
    return (each.astimezone(dt.UTC), uuid.UUID(int=1)) < (instant.astimezone(dt.UTC), row_id)


@pytest.mark.parametrize("limit", [1, 2, 4, 20])
def test_pages_have_each_row_once_and_in_its_order(limit: int) -> None:
    """However long they are."""
    shown = [row.created_at for page in pages_of_all(limit) for row in page.items]
    assert list(map(str, shown)) == list(map(str, INSTANTS[::-1]))


def test_notices_of_a_page_are_the_newest() -> None:
    """The greatest instants of all groups."""
    pages = {
        group: Page([CreditNotice(created_at=each, number=1) for each in instants[::-1]], None)
        for group, instants in zip(GROUPS, DIVIDED, strict=False)
    }
    shown = [str(each.created_at) for each in merge_notices(pages, 9).items]
    assert shown == list(map(str, INSTANTS[::-1]))


def test_notices_are_watched_in_their_order() -> None:
    """What came in all groups between two looks."""
    came = [CreditNotice(created_at=each) for group in DIVIDED for each in group]
    shown = [str(each.created_at) for each in oldest_first(came)]
    assert shown == list(map(str, INSTANTS))


def test_the_payments_that_wait_are_the_oldest() -> None:
    """Of those that are noted, and those of every group."""
    payments = [UnmatchedPayment(created_at=each) for group in DIVIDED for each in group]
    assert [str(each.created_at) for each in oldest(payments, 7)] == list(map(str, INSTANTS[:7]))


def test_the_journal_has_entries_in_their_order(groups: ConnectionParameters) -> None:
    """An entry after the other, whichever groups they are of."""
    assert groups
    for place, group in enumerate(GROUPS[:3]):
        with routed_to_schema(group), SessionLocal.begin() as session:
            give_by_turns(session, place)
    with SessionLocal() as session:
        begin_report(session)
        snapshot = take_snapshot(session)
        bounds = [BEGAN - dt.timedelta(days=1), snapshot.now]
        entries = Entries(
            session, snapshot, Program.HLEDGER, bounds, zone="Europe/Berlin", by_day=False
        )
        written = "\n".join(each for _, each in entries)
    amounts = re.findall(r"^  \S+  (\d+) CREDITS$", written, re.MULTILINE)
    assert amounts == [str(step + 1) for step in range(len(INSTANTS))]


def give_by_turns(session: Session, place: int) -> None:
    """To a new user, at each third instant, as many credits as its number is."""
    user = a_user()
    session.add(user)
    session.flush()
    with settable_clock(session.connection()):
        for step in range(place, len(INSTANTS), 3):
            set_clock(session, INSTANTS[step])
            execute(session, [grant(user.user_id, step + 1)])
    session.execute(text("RESET tests.now"))
