"""Makes `Book`s of rows, and writes the books that the rules have changed.

`lock_books` and `write_books` do it on a session; the batch engine does the same on a connection
of its own with `read_rows` and `changed_rows.rows_of`.
"""

import datetime as dt
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, Update, Uuid, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from src.common.credits.domain import errors
from src.common.credits.domain.book import BEFORE_ALL, Book, Hold, Lot, Original, StoredBook
from src.common.credits.domain.commands import Result
from src.common.credits.persistence.changed_rows import rows_of
from src.common.credits.persistence.few_rows import shape_and_values, write_statement_of_one
from src.common.credits.persistence.loaded_users import show
from src.common.credits.persistence.reading import Locking, OneUser, books_statement
from src.common.credits.persistence.running import run
from src.common.credits.persistence.writing import shape_and_arrays, write_statement
from src.common.models.credit_entry import EntryKind
from src.common.models.credit_hold import HoldStatus
from src.common.models.user import User
from src.common.sharding.refusals import refuse_other_groups

Key = tuple[uuid.UUID, str]
EntryId = tuple[uuid.UUID, int]


class _HoldRow(NamedTuple):
    """A hold as `books_statement` has it."""

    seq: int
    amount: int
    captured: int
    status: HoldStatus
    expires_at: dt.datetime
    allocations: list[tuple[int, Lot]] | None


class _AnswerRow(NamedTuple):
    """What an operation answered, as `books_statement` has it."""

    key: str
    digest: str
    seq: int
    kind: str
    amount: int
    captured: int | None
    balance: int
    created_at: dt.datetime
    expires_at: dt.datetime | None
    spent: int | None = None


class _OriginalHold(NamedTuple):
    """A hold whose captured part is to be undone, as `books_statement` has it."""

    amount: int
    captured: int
    status: HoldStatus
    expires_at: dt.datetime
    retaken: int


class _OriginalRow(NamedTuple):
    """An entry to be undone, as `books_statement` has it; no kind where there is none."""

    seq: int
    kind: EntryKind | None
    amount: int | None
    actor: str | None
    lines: list[tuple[int, int, Lot | None]] | None
    """The lot where it is closed: open ones are read anyway."""
    undone: list[list[tuple[int, int]]] | None
    hold: _OriginalHold | None


read_lot = msgspec.json.Decoder(Lot).decode
"""A lot that was read as the text of `lot_json`."""
_read_lots = msgspec.json.Decoder(list[Lot]).decode
_read_holds = msgspec.json.Decoder(list[_HoldRow]).decode
_read_debts = msgspec.json.Decoder(list[tuple[int, int]]).decode
_read_answers = msgspec.json.Decoder(list[_AnswerRow]).decode
_read_originals = msgspec.json.Decoder(list[_OriginalRow]).decode


def lock_users(session: Session, user_ids: Iterable[uuid.UUID]) -> None:
    """Lock users' rows in `user_id` order until the database transaction ends.

    A caller who will change several users in several calls locks them all first. `FOR NO KEY
    UPDATE` does not conflict with the foreign-key checks of rows that refer to the user.
    """
    connection_of(session)
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
    originals: Sequence[EntryId] = (),
    now: dt.datetime | None = None,
) -> dict[uuid.UUID, StoredBook]:
    """Lock users' rows in `user_id` order and read their books, and what has `keys` already.

    Otherwise as `load_books`.
    """
    connection = connection_of(session)
    parameters = read_parameters(
        user_ids, keys=keys, hold_seqs=hold_seqs, originals=originals, now=now
    )
    asked = parameters["user_ids"]
    books, stale = _read(connection, Locking.WAIT, parameters)
    stale += unchained(books)
    if stale:
        parameters["user_ids"] = stale
        books |= _read(connection, Locking.NONE, parameters)[0]
    return _of_this_group(connection, asked, books)


def _of_this_group(
    connection: Connection, user_ids: Sequence[uuid.UUID], books: dict[uuid.UUID, StoredBook]
) -> dict[uuid.UUID, StoredBook]:
    """The books, unless one that is missing is kept by another group of users."""
    if len(books) < len(user_ids):
        refuse_other_groups(connection, set(user_ids) - books.keys())
    return books


def unchained(books: Mapping[uuid.UUID, StoredBook]) -> list[uuid.UUID]:
    """The users whose last entry had no hash when these books were read.

    It may have been given one since, which changes no version (`chaining.py`). So their entries are
    written from a book that was read once they were locked.
    """
    return [book.user_id for book in books.values() if book.last_hash is None]


def load_books(
    session: Session,
    user_ids: Iterable[uuid.UUID],
    *,
    hold_seqs: Iterable[int] = (),
    originals: Sequence[EntryId] = (),
    now: dt.datetime | None = None,
) -> dict[uuid.UUID, StoredBook]:
    """The books of these users, all as of one snapshot; unknown users are missing.

    Open lots, open holds and debts are always there; `hold_seqs` names holds wanted whatever their
    status, `originals` entries to be undone. `now` replaces the database's clock, in tests and for
    readings of the past.
    """
    connection = reading_connection_of(session)
    parameters = read_parameters(user_ids, hold_seqs=hold_seqs, originals=originals, now=now)
    books = _read(connection, Locking.NONE, parameters)[0]
    return _of_this_group(connection, parameters["user_ids"], books)


def read_parameters(
    user_ids: Iterable[uuid.UUID],
    *,
    keys: Sequence[Key] = (),
    hold_seqs: Iterable[int] = (),
    originals: Sequence[EntryId] = (),
    now: dt.datetime | None = None,
) -> dict[str, Any]:
    """The parameters of `books_statement`; where there are originals, of the one with them."""
    reversed_ = {
        "reversed_user_ids": [user_id for user_id, _ in originals],
        "reversed_seqs": [seq for _, seq in originals],
    }
    return {
        "user_ids": list(user_ids),
        "key_user_ids": [user_id for user_id, _ in keys],
        "keys": [key for _, key in keys],
        "hold_seqs": list(hold_seqs),
        "now": now,
        **(reversed_ if originals else {}),
    }


def has_originals(parameters: Mapping[str, Any]) -> bool:
    """Whether these parameters are for the statement with originals."""
    return "reversed_seqs" in parameters


def write_books(session: Session, books: Iterable[Book]) -> None:
    """Write what the rules decided, all in one statement, so that the triggers see it whole."""
    changed = [book for book in books if book.entries]
    if not changed:
        return
    run(connection_of(session), *_worded(changed))
    for book in changed:
        show(session, book.user_id, balance=book.balance, version=book.version)


def write_book_if(
    session: Session,
    book: Book,
    may_write: ColumnElement[bool],
    parameters: Mapping[str, Any],
) -> dt.datetime | None:
    """Write one user's rows, if they are few and `may_write`: the user's new `updated_at`.

    None where they are not: nothing was written.
    """
    few = shape_and_values(rows_of([book]))
    if few is None:
        return None
    shape, counts, values = few
    statement = write_statement_of_one(shape, counts, may_write)
    rows = run(connection_of(session), statement, {**values, **parameters}).all()
    if not rows:
        return None
    show(session, book.user_id, balance=book.balance, version=book.version)
    updated_at: dt.datetime = rows[0][0]
    return updated_at


def connection_of(session: Session) -> Connection:
    """Where the ledger's tables are, for a session too whose models alone are bound.

    Raises:
        Invalid: DATABASE_TRANSACTION_REQUIRED, each statement would be committed by itself.
    """
    connection = reading_connection_of(session)
    driver_connection: Any = connection.connection.dbapi_connection
    if connection.dialect.detect_autocommit_setting(driver_connection):
        raise errors.database_transaction_required()
    return connection


def reading_connection_of(session: Session) -> Connection:
    """The same for what only reads, which may be outside a database transaction."""
    return session.connection(bind_arguments={"mapper": User})


def _worded(changed: Sequence[Book]) -> tuple[Update, dict[str, Any]]:
    """The statement that writes what the rules decided, and its parameters."""
    rows = rows_of(changed)
    if len(changed) == 1 and (few := shape_and_values(rows)) is not None:
        shape, counts, values = few
        return write_statement_of_one(shape, counts), values
    shape, arrays = shape_and_arrays(rows)
    return write_statement(shape), arrays


def _read(
    connection: Connection, locking: Locking, parameters: Mapping[str, Any]
) -> tuple[dict[uuid.UUID, StoredBook], list[uuid.UUID]]:
    if has_originals(parameters):
        # Undoing is rare: the form without arrays is not worth a second wording of originals.
        statement = books_statement(locking, with_originals=True)
        return read_rows(run(connection, statement, parameters))
    users, keys, holds = (parameters[name] for name in ("user_ids", "keys", "hold_seqs"))
    if len(users) != 1 or len(keys) > 1 or len(holds) > 1:
        return read_rows(run(connection, books_statement(locking), parameters))
    statement = books_statement(locking, OneUser(bool(keys), bool(holds)))
    values = {"user_id": users[0], "now": parameters["now"]}
    values |= {"key": keys[0]} if keys else {}
    values |= {"hold_seq": holds[0]} if holds else {}
    return read_rows(run(connection, statement, values))


def read_rows(
    rows: Iterable[Sequence[Any]],
) -> tuple[dict[uuid.UUID, StoredBook], list[uuid.UUID]]:
    """What `books_statement` found: books, and users to be read again.

    Those are the users somebody else wrote to before they were locked.
    """
    books: dict[uuid.UUID, StoredBook] = {}
    stale: list[uuid.UUID] = []
    for user_id, balance, version, is_active, version_seen, now, last, last_hash, *texts in rows:
        if version_seen != version:
            stale.append(user_id)
            continue
        book = books[user_id] = Book(user_id, balance, version, is_active, now, last or BEFORE_ALL)
        book.last_hash = last_hash
        if now.tzinfo is not dt.UTC:
            _turn_to_utc(book)
        lots, *others = texts
        if lots:
            book.lots = {lot.seq: lot for lot in _read_lots(lots)}
        if any(others):
            _fill(book, *others)
    return books, stale


def _fill(
    book: StoredBook,
    holds: str | None,
    debts: str | None,
    answers: str | None,
    originals: str | None = None,
) -> None:
    """What the statement gives as JSON besides open lots, None where there is nothing."""
    if holds:
        for hold in _read_holds(holds):
            _add_hold(book, hold)
    if debts:
        book.debts = dict(_read_debts(debts))
    if answers:
        for answer in _read_answers(answers):
            _add_answer(book, answer)
    if originals:
        for original in _read_originals(originals):
            _add_original(book, original)


def _turn_to_utc(book: StoredBook) -> None:
    """From the session's time zone, which may be one whose clock goes back once a year."""
    book.now = book.now.astimezone(dt.UTC)
    book.last_effective_at = book.last_effective_at.astimezone(dt.UTC)


def _add_hold(book: StoredBook, row: _HoldRow) -> None:
    seq, amount, captured, status, expires_at, allocations = row
    taken = {add_lot(book, lot): share for share, lot in allocations or ()}
    book.holds[seq] = Hold(seq, amount, captured, status, expires_at, taken)


def _add_answer(book: StoredBook, row: _AnswerRow) -> None:
    result = Result(
        user_id=book.user_id,
        seq=row.seq,
        kind=row.kind,
        amount=row.amount,
        captured=row.captured,
        balance=row.balance,
        created_at=row.created_at.astimezone(dt.UTC),
        expires_at=row.expires_at.astimezone(dt.UTC) if row.expires_at else None,
        spent=row.spent,
        replayed=True,
    )
    book.answers[row.key] = (bytes.fromhex(row.digest), result)


def _add_original(book: StoredBook, row: _OriginalRow) -> None:
    seq = row.seq
    if row.kind is None or row.amount is None or row.actor is None:
        book.originals[seq] = None
        return
    moved: dict[int, int] = {}
    for lot_seq, amount, lot in row.lines or ():
        moved[lot_seq] = amount
        if lot is not None:
            add_lot(book, lot)
    book.originals[seq] = Original(seq, row.kind, row.amount, row.actor, moved)
    undone: dict[int, int] = {}
    for lines in row.undone or ():
        for lot_seq, amount in lines:
            undone[lot_seq] = undone.get(lot_seq, 0) + amount
    book.undone[seq] = undone
    if row.hold is not None:
        amount, captured, status, expires_at, retaken = row.hold
        taken = {lot_seq: -share for lot_seq, share in moved.items()}
        hold = Hold(seq, amount, captured, status, expires_at, taken)
        book.holds.setdefault(seq, hold).retaken = retaken


def add_lot(book: StoredBook, lot: Lot) -> int:
    """Put a lot into the book, if it is not there yet; its `seq`."""
    book.lots.setdefault(lot.seq, lot)
    return lot.seq
