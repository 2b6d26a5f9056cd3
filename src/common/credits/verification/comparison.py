"""Compares a user's rows with what the rules would have written, column by column: pure."""

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any

from src.common.credits.domain.commands import OWN_KEY_PREFIX
from src.common.credits.domain.reversed_money import money_back
from src.common.credits.persistence.changed_rows import rows_of
from src.common.credits.persistence.writing import COLUMNS, Part
from src.common.credits.verification.chained import links, unfitting
from src.common.credits.verification.replay import Replay, replay
from src.common.credits.verification.report import Difference
from src.common.credits.verification.stored import StoredRows, UnreadableRows

ENTRY_BY_NO_RULE = "ENTRY_BY_NO_RULE"
"""The journal cannot be followed from here on: the rules write no such entry."""
REVERSED_MONEY_IS_NOT_TAKEN = "REVERSED_MONEY_IS_NOT_TAKEN"
"""What was taken and is owed is not what the user's refunds and disputes ask for."""
NOTE_OF_NO_CALLER = "METADATA_OF_NO_CALLER"
"""Metadata of an entry that is missing, or that no caller asked for."""
ROWS_CANNOT_BE_READ = "ROWS_CANNOT_BE_READ"
"""A value that no row of the ledger can have, such as an instant without an end."""

_TABLES = {
    Part.ENTRIES: "credit_entries",
    Part.POSTINGS: "credit_postings",
    Part.NEW_LOTS: "credit_lots",
    Part.NEW_HOLDS: "credit_holds",
    Part.DEBTS: "credit_debts",
}
_JOURNALS = frozenset({Part.ENTRIES, Part.POSTINGS})
_Row = tuple[Any, ...]
_WITHOUT_USER = itemgetter(slice(1, None))


def is_unopened(rows: StoredRows | UnreadableRows) -> bool:
    """Whether somebody has a balance from before the ledger, which nothing has moved since."""
    return (
        isinstance(rows, StoredRows)
        and rows.balance != 0
        and not (rows.version or rows.entries or rows.lots)
    )


def compare_user(rows: StoredRows | UnreadableRows) -> list[Difference]:
    """Everything in which a user's rows are not what the rules would have written."""
    if isinstance(rows, StoredRows):
        return differences(replay(rows))
    return [
        Difference(
            user_id=rows.user_id,
            seq=None,
            kind=ROWS_CANNOT_BE_READ,
            expected=None,
            found=rows.message,
        )
    ]


def differences(replayed: Replay) -> list[Difference]:
    """Everything in which the user's rows are not what the rules would have written.

    Where the journal cannot be followed to its end, only what was written up to there is compared.
    Of hashes only the first that does not fit is named: those after it follow from it.
    """
    expected = rows_of([replayed.book])
    found: list[Difference] = []
    is_all_the_same = replayed.stopped is None
    for part, theirs in zip(_TABLES, _stored(replayed), strict=True):
        ours = list(map(_WITHOUT_USER, expected[part]))
        is_same = theirs == ours or not (theirs or ours)  # `()` is no `[]`
        is_all_the_same &= is_same
        if not is_same and (replayed.stopped is None or part in _JOURNALS):
            found += _differing_rows(replayed, part, ours, theirs)
    if not is_all_the_same or replayed.book.last_hash is None:
        # Otherwise the hashes were made of these very rows just now.
        found += _unfitting_hash(replayed.rows)
    if replayed.stopped is not None:
        seq = replayed.book.version + 1
        return [*found, _difference(replayed, seq, ENTRY_BY_NO_RULE, replayed.stopped, None)]
    return [*found, *_others(replayed, is_same=not found)]


def _unfitting_hash(rows: StoredRows) -> list[Difference]:
    whole = links(rows.user_id, rows.ledger.ledger_id, rows)
    found = unfitting(rows.user_id, rows.ledger, whole)
    return [] if found is None else [found]


def _stored(replayed: Replay) -> Sequence[Sequence[_Row]]:
    """In the order of `_TABLES`."""
    rows = replayed.rows
    entries, postings = rows.entries, rows.postings
    if replayed.stopped is not None:
        last = replayed.book.version
        entries = [row for row in entries if row.seq <= last]
        postings = [row for row in postings if row.seq <= last]
    return entries, postings, rows.lots, rows.holds, rows.debts


def _differing_rows(
    replayed: Replay, part: Part, ours: Sequence[_Row], theirs: Sequence[_Row]
) -> Iterator[Difference]:
    size = 2 if part is Part.POSTINGS else 1
    if part is Part.DEBTS and replayed.money_back is not None:
        # A debt that came and went between two refunds leaves a row of 0 and no other trace.
        ours, theirs = (
            [row for row in ours if any(row[1:])],
            [row for row in theirs if any(row[1:])],
        )
    expected = {row[:size]: row for row in ours}
    found = {tuple(row[:size]): row for row in theirs}
    table = _TABLES[part]
    for key in sorted(expected.keys() | found.keys()):
        seq, *line = key
        lot = f"lot {line[0]}: " if line else ""
        if key not in expected:
            yield _difference(replayed, seq, table, None, f"{lot}a row")
        elif key not in found:
            yield _difference(replayed, seq, table, f"{lot}a row", None)
        else:
            for name, wanted, value in zip(
                COLUMNS[part][1:], expected[key], found[key], strict=True
            ):
                if wanted != value and name != "entry_hash":
                    yield _difference(
                        replayed, seq, f"{table}.{name}", lot + _text(wanted), lot + _text(value)
                    )


def _others(replayed: Replay, *, is_same: bool) -> Iterator[Difference]:
    """What is not a table of the ledger's own: the user's row, metadata, sums of purchases."""
    rows, book = replayed.rows, replayed.book
    if rows.balance != book.balance:
        yield _difference(replayed, None, "users.credits_balance", book.balance, rows.balance)
    if rows.version != book.version:
        yield _difference(replayed, None, "users.credits_version", book.version, rows.version)
    for seq in rows.notes:
        if not 0 < seq <= book.version or book.entries[seq - 1].key.startswith(OWN_KEY_PREFIX):
            yield _difference(replayed, seq, NOTE_OF_NO_CALLER, None, "a row")
    for purchase in rows.purchases:
        back = money_back(purchase.reversals, purchase.currency)
        for name, wanted, value in (
            ("refunded_cents", back.refunded_cents, purchase.refunded_cents),
            ("disputed_cents", back.disputed_cents, purchase.disputed_cents),
        ):
            if wanted != value:
                yield _difference(replayed, None, f"transactions.{name}", wanted, value)
    if is_same and replayed.money_back is not None:
        imbalance = replayed.money_back.imbalance(book)
        if imbalance is not None:
            yield _difference(replayed, None, REVERSED_MONEY_IS_NOT_TAKEN, *imbalance)


def _difference(
    replayed: Replay, seq: int | None, kind: str, expected: object, found: object
) -> Difference:
    return Difference(
        user_id=replayed.rows.user_id,
        seq=seq,
        kind=kind,
        expected=None if expected is None else _text(expected),
        found=None if found is None else _text(found),
    )


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
