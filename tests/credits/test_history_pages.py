"""A user's history: every entry, page by page, as it was booked."""

import pytest
from sqlalchemy.orm import Session

from src.common.credits import queries
from src.common.credits.domain.commands import (
    Grant,
    Spend,
)
from src.common.exceptions import ExceptionWithErrorType
from tests.credits.ledger import at, buy, do, someone


def test_history_is_every_entry_newest_first_whatever_the_page_size(db: Session) -> None:
    """Pages of any size, put together, are the journal backwards, without a gap or a double."""
    user_id, other = someone(db), someone(db)
    for number in range(1, 8):
        do(db, Grant, user_id, number, amount=number)
        do(db, Grant, other, number, amount=100)
    for limit in (1, 2, 3, 7, 50):
        seqs: list[int] = []
        cursor = None
        for _ in range(10):
            page = queries.history(db, user_id, cursor=cursor, limit=limit)
            assert len(page.items) <= limit
            seqs += [entry.seq for entry in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seqs == [7, 6, 5, 4, 3, 2, 1]


def test_a_page_goes_on_where_the_last_one_ended_although_entries_came_in(db: Session) -> None:
    """New entries do not shift the pages after the first."""
    user_id = someone(db)
    for _ in range(4):
        do(db, Grant, user_id, amount=1)
    assert queries.history(db, user_id) == queries.history(db, user_id, cursor=None, limit=50)
    first = queries.history(db, user_id, cursor=None, limit=2)
    do(db, Grant, user_id, amount=1)
    second = queries.history(db, user_id, cursor=first.next_cursor, limit=2)
    assert [entry.seq for entry in (*first.items, *second.items)] == [4, 3, 2, 1]


def test_an_entry_shows_its_lines_and_metadata(db: Session) -> None:
    """Who, why, when, from which lots, and the caller's own notes."""
    user_id = someone(db)
    do(db, Grant, user_id, amount=3)
    buy(db, user_id, amount=10)
    notes = {"deck": {"slides": [1, 2]}}
    do(db, Spend, user_id, 5, amount=7, reference="deck 1", metadata=notes, key="once")
    entry = queries.history(db, user_id, cursor=None, limit=1).items[0]
    assert (entry.seq, entry.kind, entry.amount, entry.balance_after) == (3, "spend", -7, 6)
    assert (entry.reference, entry.actor, entry.idempotency_key) == ("deck 1", "key:slides", "once")
    assert (entry.effective_at, entry.created_at) == (at(5), at(5))
    assert [(line.lot_seq, line.amount, line.remaining_after) for line in entry.postings] == [
        (1, -3, 0),
        (2, -4, 6),
    ]
    assert entry.metadata == notes


@pytest.mark.parametrize("cursor", ["", "0", "-1", "x", "1.0", "2147483648", "9" * 11, "٣"])
def test_a_cursor_that_is_none_is_refused(db: Session, cursor: str) -> None:
    """VALIDATION_ERROR, for history and holds alike."""
    user_id = someone(db)
    for pages in (queries.history, queries.holds):
        with pytest.raises(ExceptionWithErrorType) as refusal:
            pages(db, user_id, cursor=cursor, limit=10)
        assert refusal.value.error_type == "VALIDATION_ERROR"
