"""Users' books as the database has them, and back: rows into `Book`s, decisions into arrays.

`lock_books` and `write_books` do it on a session; the batch engine does the same on a connection
of its own with `read_rows` and `rows_of`.
"""

import datetime as dt
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Uuid, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.util import identity_key

from src.common.credits.book import Book, Hold, Lot
from src.common.credits.commands import Result
from src.common.credits.statements import Locking, books_statement
from src.common.credits.writing import Part, shape_and_arrays, write_statement
from src.common.models.credit_hold import HoldStatus
from src.common.models.credit_lot import LotSource
from src.common.models.user import User

Key = tuple[uuid.UUID, str]
Replays = dict[Key, tuple[bytes, Result]]
"""By user and key: the digest of the request that has it, and what it was answered."""


def lock_users(session: Session, user_ids: Iterable[uuid.UUID]) -> None:
    """Lock users' rows in `user_id` order until the database transaction ends.

    A caller who will change several users in several calls locks them all first. `FOR NO KEY
    UPDATE` does not conflict with the foreign-key checks of rows that refer to the user.
    """
    wanted = cast(list(user_ids), ARRAY(Uuid(as_uuid=True)))
    session.execute(
        select(User.user_id)
        .where(User.user_id == func.any(wanted))
        .order_by(User.user_id)
        .with_for_update(key_share=True)
    )


def lock_books(
    session: Session,
    user_ids: Iterable[uuid.UUID],
    *,
    keys: Sequence[Key] = (),
    hold_seqs: Iterable[int] = (),
    now: dt.datetime | None = None,
) -> tuple[dict[uuid.UUID, Book], Replays]:
    """Lock users' rows in `user_id` order and read their books, and what has `keys` already.

    Otherwise as `load_books`.
    """
    parameters = read_parameters(user_ids, keys=keys, hold_seqs=hold_seqs, now=now)
    books, replays, stale = _read(session, Locking.WAIT, parameters)
    if stale:
        parameters["user_ids"] = stale
        books_again, replays_again, _ = _read(session, Locking.NONE, parameters)
        books |= books_again
        replays |= replays_again
    return books, replays


def load_books(
    session: Session,
    user_ids: Iterable[uuid.UUID],
    *,
    hold_seqs: Iterable[int] = (),
    now: dt.datetime | None = None,
) -> dict[uuid.UUID, Book]:
    """The books of these users, all as of one snapshot; unknown users are missing.

    Open lots, open holds and debts are always there; `hold_seqs` names holds wanted whatever their
    status. `now` replaces the database's clock, in tests and for readings of the past.
    """
    parameters = read_parameters(user_ids, hold_seqs=hold_seqs, now=now)
    return _read(session, Locking.NONE, parameters)[0]


def read_parameters(
    user_ids: Iterable[uuid.UUID],
    *,
    keys: Sequence[Key] = (),
    hold_seqs: Iterable[int] = (),
    now: dt.datetime | None = None,
) -> dict[str, Any]:
    """The parameters of `books_statement`."""
    return {
        "user_ids": list(user_ids),
        "key_user_ids": [user_id for user_id, _ in keys],
        "keys": [key for _, key in keys],
        "hold_seqs": list(hold_seqs),
        "now": now,
    }


def write_books(session: Session, books: Iterable[Book]) -> None:
    """Write what the rules decided, all in one statement, so that the walls see it whole."""
    changed = [book for book in books if book.entries]
    if not changed:
        return
    shape, arrays = shape_and_arrays(rows_of(changed))
    # Where the ledger's tables are, for a session too whose models alone are bound.
    connection = session.connection(bind_arguments={"mapper": User})
    connection.execute(write_statement(shape), arrays)
    for book in changed:
        _refresh_loaded_user(session, book)


def _read(
    session: Session, locking: Locking, parameters: Mapping[str, Any]
) -> tuple[dict[uuid.UUID, Book], Replays, list[uuid.UUID]]:
    return read_rows(session.execute(books_statement(locking), parameters))


def read_rows(
    rows: Iterable[Sequence[Any]],
) -> tuple[dict[uuid.UUID, Book], Replays, list[uuid.UUID]]:
    """What `books_statement` found: books, replays, and users to be read again.

    Those are the users somebody else wrote to before they were locked.
    """
    books: dict[uuid.UUID, Book] = {}
    replays: Replays = {}
    stale: list[uuid.UUID] = []
    for user_id, balance, version, is_active, version_seen, now, lots, holds, debts, found in rows:
        if version_seen != version:
            stale.append(user_id)
            continue
        book = books[user_id] = Book(user_id, balance, version, is_active, now)
        for values in lots or ():
            add_lot(book, values)
        for values in holds or ():
            _add_hold(book, values)
        if debts:
            book.debts = dict(debts)
        if found:
            _add_replays(user_id, found, replays)
    return books, replays, stale


def _add_hold(book: Book, values: Sequence[Any]) -> None:
    seq, amount, captured, status, expires_at, allocations = values
    taken = {add_lot(book, lot): share for share, lot in allocations or ()}
    expires = dt.datetime.fromisoformat(expires_at)
    book.holds[seq] = Hold(seq, amount, captured, HoldStatus(status), expires, taken)


def _add_replays(user_id: uuid.UUID, entries: Sequence[Any], replays: Replays) -> None:
    """What the operations that wrote these entries answered."""
    for values in entries:
        key, digest, seq, kind, amount, captured, balance, created_at, expires_at = values
        result = Result(
            user_id=user_id,
            seq=seq,
            kind=kind,
            amount=amount,
            captured=captured,
            balance=balance,
            created_at=_instant(created_at),
            expires_at=_instant(expires_at) if expires_at else None,
            replayed=True,
        )
        replays[user_id, key] = (bytes.fromhex(digest), result)


def _instant(written: str) -> dt.datetime:
    return dt.datetime.fromisoformat(written).astimezone(dt.UTC)


_SOURCES = {str(source): source for source in LotSource}


def add_lot(book: Book, values: Sequence[Any]) -> int:
    """Put a lot that was read as `lot_json` into the book, if it is not there yet; its `seq`."""
    seq: int = values[0]
    _, source, priority, granted, expires_at, remaining, last_seq, transaction_id = values
    if seq not in book.lots:
        book.lots[seq] = Lot(
            seq,
            _SOURCES[source],
            priority,
            granted,
            dt.datetime.fromisoformat(expires_at) if expires_at else None,
            remaining,
            last_seq,
            uuid.UUID(transaction_id) if transaction_id else None,
        )
    return seq


def rows_of(books: Iterable[Book]) -> dict[Part, list[tuple[Any, ...]]]:
    """What the rules decided, as rows of each part of a write (`writing.COLUMNS`)."""
    rows: dict[Part, list[tuple[Any, ...]]] = {part: [] for part in Part}
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
                entry.kind.value,
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


def _refresh_loaded_user(session: Session, book: Book) -> None:
    """A `User` the caller has loaded shows the balance as booked; nothing is expired."""
    user = session.identity_map.get(identity_key(User, book.user_id))
    if user is not None:
        set_committed_value(user, "credits_balance", book.balance)
        set_committed_value(user, "credits_version", book.version)
