"""Reading users' books from the database, locking them, and writing down what the rules decided."""

import datetime as dt
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    Uuid,
    bindparam,
    cast,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.util import identity_key

from src.common.credits.book import Book, Hold, Lot
from src.common.credits.statements import books_statement, entries_statement
from src.common.models.credit_entry import CreditEntry, CreditEntryMetadata, CreditPosting
from src.common.models.credit_hold import CreditDebt, CreditHold, HoldStatus
from src.common.models.credit_lot import CreditLot, LotSource
from src.common.models.user import User


def lock_users(session: Session, user_ids: Iterable[uuid.UUID]) -> None:
    """Lock users' rows in `user_id` order until the database transaction ends.

    A caller who will change several users in several calls locks them all first. `FOR NO KEY
    UPDATE` does not conflict with the foreign-key checks of rows that refer to the user.
    """
    session.execute(
        select(User.user_id)
        .where(User.user_id == func.any(_uuids(user_ids)))
        .order_by(User.user_id)
        .with_for_update(key_share=True)
    )


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
    parameters = {"user_ids": list(user_ids), "hold_seqs": list(hold_seqs), "now": now}
    rows = session.execute(books_statement(), parameters).all()
    return {row.user_id: _book_of(row) for row in rows}


def find_entries(session: Session, keys: Sequence[tuple[uuid.UUID, str]]) -> Sequence[CreditEntry]:
    """The entries that have these users' keys already."""
    parameters = {"user_ids": [each for each, _ in keys], "keys": [key for _, key in keys]}
    return session.scalars(entries_statement(), parameters).all()


def write_books(session: Session, books: Iterable[Book]) -> None:
    """Write what the rules decided, so that every constraint holds at the end of each step."""
    changed = [book for book in books if book.entries]
    if not changed:
        return
    _insert(session, CreditEntry, [row for book in changed for row in _entry_rows(book)])
    _insert(session, CreditLot, [row for book in changed for row in _lot_rows(book)])
    _insert(session, CreditPosting, [row for book in changed for row in _posting_rows(book)])
    _insert(session, CreditEntryMetadata, [row for book in changed for row in _notes(book)])
    _insert(session, CreditHold, [row for book in changed for row in _hold_rows(book)])
    _update(session, CreditLot, [row for book in changed for row in _lot_changes(book)])
    _update(session, CreditHold, [row for book in changed for row in _hold_changes(book)])
    _write_debts(session, changed)
    _update(session, User, [_user_changes(book) for book in changed])
    for book in changed:
        _refresh_loaded_user(session, book)


def _book_of(row: Any) -> Book:
    book = Book(row.user_id, row.credits_balance, row.credits_version, row.is_active, row.now)
    for values in row.lots:
        add_lot(book, values)
    for seq, amount, captured, status, expires_at, allocations in row.holds:
        taken = {add_lot(book, values): share for share, values in allocations or ()}
        book.holds[seq] = Hold(
            seq, amount, captured, HoldStatus(status), dt.datetime.fromisoformat(expires_at), taken
        )
    book.debts = dict(row.debts)
    return book


def add_lot(book: Book, values: Sequence[Any]) -> int:
    """Put a lot that was read as `lot_json` into the book, if it is not there yet; its `seq`."""
    seq: int = values[0]
    _, source, priority, granted, expires_at, remaining, last_seq, transaction_id = values
    if seq not in book.lots:
        book.lots[seq] = Lot(
            seq=seq,
            source=LotSource(source),
            priority=priority,
            granted=granted,
            expires_at=dt.datetime.fromisoformat(expires_at) if expires_at else None,
            remaining=remaining,
            last_seq=last_seq,
            transaction_id=uuid.UUID(transaction_id) if transaction_id else None,
        )
    return seq


def _entry_rows(book: Book) -> Iterable[dict[str, Any]]:
    for entry in book.entries:
        yield {
            "user_id": book.user_id,
            "seq": entry.seq,
            "kind": str(entry.kind),
            "amount": entry.amount,
            "balance_after": entry.balance_after,
            "result_balance": entry.result_balance,
            "captured": entry.captured,
            "related_seq": entry.related_seq,
            "hold_expires_at": entry.hold_expires_at,
            "idempotency_key": entry.key,
            "request_digest": entry.digest,
            "reference": entry.reference,
            "actor": entry.actor,
            "effective_at": entry.effective_at,
            "created_at": entry.created_at,
        }


def _posting_rows(book: Book) -> Iterable[dict[str, Any]]:
    for entry in book.entries:
        for posting in entry.postings:
            yield {
                "user_id": book.user_id,
                "seq": entry.seq,
                "lot_seq": posting.lot_seq,
                "amount": posting.amount,
                "remaining_after": posting.remaining_after,
            }


def _notes(book: Book) -> Iterable[dict[str, Any]]:
    for entry in book.entries:
        if entry.metadata is not None:
            document = dict(entry.metadata)
            yield {"user_id": book.user_id, "seq": entry.seq, "document": document}


def _lot_rows(book: Book) -> Iterable[dict[str, Any]]:
    for seq in sorted(book.new_lots):
        lot = book.lots[seq]
        yield {
            "user_id": book.user_id,
            "seq": seq,
            "source": str(lot.source),
            "transaction_id": lot.transaction_id,
            "priority": lot.priority,
            "granted": lot.granted,
            "expires_at": lot.expires_at,
            "remaining": lot.remaining,
            "last_seq": lot.last_seq,
            "is_open": lot.remaining > 0,
        }


def _lot_changes(book: Book) -> Iterable[dict[str, Any]]:
    for seq in sorted(book.changed_lots):
        lot = book.lots[seq]
        yield {
            "at_user_id": book.user_id,
            "at_seq": seq,
            "remaining": lot.remaining,
            "last_seq": lot.last_seq,
            "is_open": lot.remaining > 0,
        }


def _hold_rows(book: Book) -> Iterable[dict[str, Any]]:
    for seq in sorted(book.new_holds):
        hold = book.holds[seq]
        yield {
            "user_id": book.user_id,
            "seq": seq,
            "amount": hold.amount,
            "captured": hold.captured,
            "status": str(hold.status),
            "expires_at": hold.expires_at,
        }


def _hold_changes(book: Book) -> Iterable[dict[str, Any]]:
    for seq in sorted(book.changed_holds):
        hold = book.holds[seq]
        yield {
            "at_user_id": book.user_id,
            "at_seq": seq,
            "captured": hold.captured,
            "status": str(hold.status),
            "expires_at": hold.expires_at,
        }


def _user_changes(book: Book) -> dict[str, Any]:
    return {
        "at_user_id": book.user_id,
        "credits_balance": book.balance,
        "credits_version": book.version,
    }


def _write_debts(session: Session, books: Iterable[Book]) -> None:
    rows = [
        {"user_id": book.user_id, "seq": seq, "outstanding": book.debts[seq]}
        for book in books
        for seq in sorted(book.changed_debts)
    ]
    if rows:
        statement = upsert(CreditDebt)
        session.execute(
            statement.on_conflict_do_update(
                index_elements=[CreditDebt.user_id, CreditDebt.seq],
                set_={"outstanding": statement.excluded.outstanding},
            ),
            rows,
        )


def _insert(session: Session, model: type[Any], rows: list[dict[str, Any]]) -> None:
    if rows:
        _connection(session).execute(insert(model.__table__), rows)


def _update(session: Session, model: type[Any], rows: list[dict[str, Any]]) -> None:
    """Update rows by their key, given as `at_…`."""
    if not rows:
        return
    table: Table = model.__table__
    keys = [name for name in rows[0] if name.startswith("at_")]
    statement = update(table).where(
        *(table.c[name.removeprefix("at_")] == bindparam(name) for name in keys)
    )
    _connection(session).execute(
        statement.values({name: bindparam(name) for name in rows[0] if name not in keys}), rows
    )


def _connection(session: Session) -> Connection:
    """Where the ledger's tables are, for a session too whose models alone are bound."""
    return session.connection(bind_arguments={"mapper": User})


def _refresh_loaded_user(session: Session, book: Book) -> None:
    """A `User` the caller has loaded shows the balance as booked; nothing is expired."""
    user = session.identity_map.get(identity_key(User, book.user_id))
    if user is not None:
        set_committed_value(user, "credits_balance", book.balance)
        set_committed_value(user, "credits_version", book.version)


def _uuids(user_ids: Iterable[uuid.UUID]) -> ColumnElement[Any]:
    return cast(list(user_ids), ARRAY(Uuid(as_uuid=True)))
