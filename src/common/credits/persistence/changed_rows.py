"""Turns the books that the rules have changed into the rows to be written."""

import json
from collections.abc import Iterable
from typing import Any

from src.common.credits.domain import chain
from src.common.credits.domain.book import Book, Entry
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
    user_id, last_hash = book.user_id, book.last_hash
    entries, postings = rows[Part.ENTRIES], rows[Part.POSTINGS]
    for entry in book.entries:
        row = (
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
        if last_hash is not None:
            last_hash = chain.entry_hash(last_hash, row, _lines(entry), _made(book, entry.seq))
            entry.entry_hash = last_hash
        entries.append((*row, last_hash))
        for line in entry.postings:
            postings.append((user_id, entry.seq, line.lot_seq, line.amount, line.remaining_after))
        if entry.metadata is not None:
            document = json.dumps(dict(entry.metadata), ensure_ascii=False)
            rows[Part.NOTES].append((user_id, entry.seq, document))


def _lines(entry: Entry) -> bytes:
    """Its postings, as they are hashed."""
    lines = entry.postings
    if len(lines) == 1:
        [line] = lines
        return chain.line_octets(line.lot_seq, line.amount, line.remaining_after)
    by_lot = sorted((line.lot_seq, line.amount, line.remaining_after) for line in lines)
    return b"".join(chain.line_octets(*line) for line in by_lot)


def _made(book: Book, seq: int) -> bytes:
    """What the entry made, as it is hashed."""
    if seq in book.new_lots:
        lot = book.lots[seq]
        return chain.lot_octets(
            lot.source, lot.transaction_id, lot.priority, lot.granted, lot.expires_at
        )
    if seq in book.new_holds:
        return chain.hold_octets(book.holds[seq].amount)
    if seq == book.opening_seq and book.opening_debt:
        return chain.opening_debt_octets(book.opening_debt)
    return chain.MADE_NOTHING


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
