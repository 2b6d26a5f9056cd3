"""Turns the books that the rules have changed into the rows to be written."""

import json
from collections.abc import Iterable
from typing import Any

from src.common.credits.domain.book import Book
from src.common.credits.persistence.writing import COLUMNS, Part


def rows_of(books: Iterable[Book]) -> dict[Part, list[tuple[Any, ...]]]:
    """What the rules decided, as rows of each part of a write (`writing.COLUMNS`)."""
    rows: dict[Part, list[tuple[Any, ...]]] = {part: [] for part in COLUMNS}
    for book in books:
        _add_entries(book, rows)
        if book.new_lots:
            rows[Part.NEW_LOTS] += _new_lots(book)
        if book.new_holds or book.changed_holds:
            _add_holds(book, rows)
        if book.changed_debts:
            rows[Part.DEBTS] += [
                (
                    book.user_id,
                    seq,
                    book.debts[seq],
                    book.opening_debt if seq == book.opening_seq else 0,
                )
                for seq in sorted(book.changed_debts)
            ]
    return rows


def _add_entries(book: Book, rows: dict[Part, list[tuple[Any, ...]]]) -> None:
    user_id = book.user_id
    entries, postings = rows[Part.ENTRIES], rows[Part.POSTINGS]
    for entry in book.entries:
        entries.append(
            (
                user_id,
                entry.seq,
                str(entry.kind),
                entry.amount,
                entry.balance_after,
                entry.result_balance,
                entry.captured,
                entry.related_seq,
                entry.hold_expires_at,
                entry.key,
                entry.digest,
                entry.reference,
                entry.actor,
                entry.effective_at,
                entry.created_at,
            )
        )
        for line in entry.postings:
            postings.append((user_id, entry.seq, line.lot_seq, line.amount, line.remaining_after))
        if entry.metadata is not None:
            document = json.dumps(dict(entry.metadata), ensure_ascii=False)
            rows[Part.NOTES].append((user_id, entry.seq, document))


def _new_lots(book: Book) -> Iterable[tuple[Any, ...]]:
    for seq in sorted(book.new_lots):
        lot = book.lots[seq]
        yield (
            book.user_id,
            seq,
            str(lot.source),
            lot.transaction_id,
            lot.priority,
            lot.granted,
            lot.expires_at,
            lot.remaining,
            lot.last_seq,
            lot.remaining > 0,
        )


def _add_holds(book: Book, rows: dict[Part, list[tuple[Any, ...]]]) -> None:
    for seq in sorted(book.new_holds):
        hold = book.holds[seq]
        rows[Part.NEW_HOLDS].append(
            (book.user_id, seq, hold.amount, hold.captured, str(hold.status), hold.expires_at)
        )
    for seq in sorted(book.changed_holds):
        hold = book.holds[seq]
        rows[Part.HOLDS].append(
            (book.user_id, seq, hold.captured, str(hold.status), hold.expires_at)
        )
