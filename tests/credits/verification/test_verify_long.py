"""What replaying a long journal costs grows with its length, and not with its square."""

import datetime as dt
import uuid
from typing import Any

import pytest

from src.common.credits.domain import rules
from src.common.credits.domain.book import BEFORE_ALL, Book
from src.common.credits.domain.commands import Capture, Command, Grant, OpenHold
from src.common.credits.persistence.changed_rows import rows_of
from src.common.credits.persistence.writing import Part
from src.common.credits.verification.comparison import compare_user
from src.common.credits.verification.stored import (
    DebtRow,
    EntryRow,
    HoldRow,
    LedgerRow,
    LotRow,
    PostingRow,
    StoredRows,
)

USER = uuid.UUID(int=1)
START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
HOLDS = 300


def a_long_journal() -> StoredRows:
    """Holds that expired, each captured long afterwards."""
    book = Book(USER, 0, 0, True, START, BEFORE_ALL, last_hash=bytes(16))
    do(book, Grant, 0, amount=10 * HOLDS)
    held: list[int] = []
    for number in range(HOLDS):
        do(book, OpenHold, 100 * number, amount=1, expires_in_seconds=30)
        held.append(book.version)
    for number, seq in enumerate(held):
        do(book, Capture, 100 * HOLDS + number, hold_seq=seq, amount=1, if_expired="retake")
    rows = {part: [row[1:] for row in found] for part, found in rows_of([book]).items()}
    return StoredRows(
        LedgerRow(book.last_hash or b"", True),
        USER,
        book.balance,
        book.version,
        [EntryRow(*row) for row in rows[Part.ENTRIES]],
        sorted(PostingRow(*row) for row in rows[Part.POSTINGS]),
        [LotRow(*row) for row in rows[Part.NEW_LOTS]],
        [HoldRow(*row) for row in rows[Part.NEW_HOLDS]],
        [DebtRow(*row) for row in rows[Part.DEBTS]],
        [],
        [],
    )


def do(book: Book, kind: type[Command], seconds: int, **arguments: Any) -> None:
    """Have the rules do it, so many seconds after the start."""
    book.now = START + dt.timedelta(seconds=seconds)
    rules.settle(book)
    command = kind(user_id=USER, key=f"key-{book.version}", actor="key:tests", **arguments)
    rules.apply(book, command, open_holds_max=HOLDS)


def test_late_captures_of_many_holds_are_looked_at_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rules see what is open and the hold in question, however many are closed."""
    journal = a_long_journal()
    seen: list[int] = []
    settle = rules.settle

    def counting(book: Book) -> Book:
        seen.append(len(book.holds) + len(book.lots))
        return settle(book)

    monkeypatch.setattr(rules, "settle", counting)
    assert compare_user(journal) == []
    assert len(seen) == len(journal.entries)
    assert max(seen) < HOLDS / 2
