"""Entries are found by what they are, moved and were for, and no page reads the whole journal."""

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from src.common.credits import entry_search
from src.common.credits.domain.commands import Adjust, Grant, Release, Spend
from src.common.credits.domain.commands import OpenHold as Hold
from src.common.credits.entry_search import EntryFilter, search_entries
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.credit_entry import EntryKind
from src.common.models.credit_lot import LotSource
from tests.credits.ledger import at, buy, do, someone

PERSON = "user:00000000-0000-0000-0000-000000000001"


@pytest.fixture
def user_id(db: Session) -> uuid.UUID:
    """A user with ten entries, two others at each instant, and somebody else with as many."""
    whose = someone(db), someone(db)
    for each in whose:
        buy(db, each, 0, amount=100)  # 1: lot 1
        do(db, Grant, each, 10, amount=40, reference="Welcome, Ada", source=LotSource.PROMO)  # 2
        do(db, Spend, each, 20, amount=50, reference="deck 1", key="charge-1")  # 3: lots 2, 1
        do(db, Spend, each, 30, amount=5, reference="deck 2")  # 4: lot 1
        hold = do(db, Hold, each, 40, amount=20, expires_in_seconds=600)  # 5: lot 1
        do(db, Release, each, 50, hold_seq=hold.seq)  # 6: lot 1
        do(db, Adjust, each, 60, amount=-7, reason="counted twice", actor=PERSON)  # 7: lot 1
        do(db, Adjust, each, 60, amount=9, reason="100%_sorry", actor=PERSON)  # 8: lot 8
        do(db, Spend, each, 70, amount=1)  # 9
        do(db, Spend, each, 80, amount=2)  # 10
    return whose[0]


FOUND: dict[str, tuple[EntryFilter, list[int]]] = {
    "all": (EntryFilter(), [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
    "a kind": (EntryFilter(kind=EntryKind.ADJUSTMENT), [8, 7]),
    "a kind of none": (EntryFilter(kind=EntryKind.CLAWBACK), []),
    "a lot": (EntryFilter(lot_seq=2), [3, 2]),
    "a lot that is none": (EntryFilter(lot_seq=3), []),
    "a source": (EntryFilter(source=LotSource.PROMO), [3, 2]),
    "a person": (EntryFilter(actor=PERSON), [8, 7]),
    "any person": (EntryFilter(actor="user:"), [8, 7]),
    "from an instant on": (EntryFilter(since=at(60)), [10, 9, 8, 7]),
    "up to an instant": (EntryFilter(until=at(60)), [6, 5, 4, 3, 2, 1]),
    "between two": (EntryFilter(since=at(10), until=at(30.5)), [4, 3, 2]),
    "before all": (EntryFilter(until=at(0)), []),
    "after all": (EntryFilter(since=at(81)), []),
    "a large movement": (EntryFilter(least=40), [3, 2, 1]),
    "a small one": (EntryFilter(most=2), [10, 9]),
    "of exactly so much": (EntryFilter(least=20, most=20), [6, 5]),
    "a part of what it was for": (EntryFilter(text="DECK"), [4, 3]),
    "signs of LIKE's": (EntryFilter(text="%_s"), [8]),
    "a part of nothing": (EntryFilter(text="qqq"), []),
    "several": (EntryFilter(kind=EntryKind.SPEND, since=at(20), most=5, lot_seq=1), [10, 9, 4]),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_is_asked_for_is_found_newest_first(
    db: Session, user_id: uuid.UUID, name: str
) -> None:
    """In pages of any size; nothing of somebody else's."""
    wanted, expected = FOUND[name]
    for limit in (1, 3, 50):
        assert all_pages(db, user_id, wanted, limit) == expected


def all_pages(db: Session, user_id: uuid.UUID, wanted: EntryFilter, limit: int) -> list[int]:
    """The numbers of the entries of all pages."""
    seqs: list[int] = []
    cursor = None
    while True:
        page = search_entries(db, user_id, wanted, cursor=cursor, limit=limit)
        assert len(page.items) <= limit
        seqs += [entry.seq for entry in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return seqs


def test_a_whole_key_leads_to_its_entry(db: Session, user_id: uuid.UUID) -> None:
    """Whatever else is asked for; a part of a key is none."""
    wanted = EntryFilter(text="charge-1", since=at(70))
    assert all_pages(db, user_id, wanted, 5) == [3]
    assert all_pages(db, user_id, EntryFilter(text="charge-"), 5) == []


def test_a_page_looks_at_so_many_entries_and_the_next_one_goes_on(
    db: Session, user_id: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they are many; it says how far it looked."""
    monkeypatch.setattr(entry_search, "LOOKED_AT_MAX", 4)
    wanted = EntryFilter(least=100)
    first = search_entries(db, user_id, wanted, limit=5)
    assert ([*first.items], first.looked_back_to, first.next_cursor) == ([], 7, "7")
    second = search_entries(db, user_id, wanted, cursor=first.next_cursor, limit=5)
    assert (second.looked_back_to, second.next_cursor) == (3, "3")
    last = search_entries(db, user_id, wanted, cursor=second.next_cursor, limit=5)
    assert ([each.seq for each in last.items], last.next_cursor) == ([1], None)


@pytest.mark.parametrize("name", FOUND)
def test_a_search_takes_as_many_statements_however_many_entries_there_are(
    db: Session, user_id: uuid.UUID, name: str
) -> None:
    """One to know how many there are, one for each end of the days, and four for the page."""
    wanted, _ = FOUND[name]
    ends = sum(each is not None for each in (wanted.since, wanted.until))
    by_key = wanted.text is not None
    before = statements_of(db, lambda: search_entries(db, user_id, wanted, limit=3))
    for number in range(40):
        do(db, Grant, user_id, 100 + number, amount=1, reference="deck")
    after = statements_of(db, lambda: search_entries(db, user_id, wanted, limit=3))
    assert max(before, after) <= 1 + by_key + ends + 4


def statements_of(db: Session, do_it: Callable[[], object]) -> int:
    """How many statements it runs."""
    found: list[str] = []

    def note(*arguments: Any) -> None:
        found.append(arguments[2])

    connection = db.connection()
    event.listen(connection, "before_cursor_execute", note)
    do_it()
    event.remove(connection, "before_cursor_execute", note)
    return len(found)


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"kind": "gift"}, "kind"),
        ({"source": "heaven"}, "source"),
        ({"text": "\x00"}, "text"),
        ({"actor": "\x00"}, "actor"),
    ],
)
def test_what_is_no_filter_is_refused(
    db: Session, user_id: uuid.UUID, wanted: dict[str, Any], field: str
) -> None:
    """Naming it."""
    with pytest.raises(ExceptionWithErrorType) as refused:
        search_entries(db, user_id, EntryFilter(**wanted), limit=5)
    assert refused.value.details["field"] == field


def test_nobody_has_no_entries(db: Session) -> None:
    """Which is another thing than having none."""
    with pytest.raises(ExceptionWithErrorType) as refused:
        search_entries(db, uuid.UUID(int=9), EntryFilter(since=dt.datetime.now(dt.UTC)), limit=5)
    assert refused.value.error_type == "USER_NOT_FOUND"
    assert search_entries(db, someone(db), EntryFilter(since=at(0)), limit=5).items == []
