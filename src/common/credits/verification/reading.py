"""Reads users' books: every table of the ledger, in binary, all of one snapshot."""

import uuid
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import psycopg
from sqlalchemy import ARRAY, Connection, Row, Select, Uuid, bindparam, cast, func, select, text
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from src.common.credits.domain.reversed_money import ReversalRow
from src.common.credits.persistence.writing import COLUMNS, Part
from src.common.credits.verification.stored import (
    DebtRow,
    EntryRow,
    HashedRows,
    HoldRow,
    LedgerRow,
    LotRow,
    PostingRow,
    PurchaseRow,
    StoredRows,
    UnreadableRows,
)
from src.common.models.user import User

JOURNAL_MAX = 1_000_000
"""Entries of one user that are replayed at most: some GB of memory."""
PORTION_ENTRIES = 50_000
"""Entries read at a time, unless one user has more."""


class Span(NamedTuple):
    """Everybody from the first user to the last in the order of `user_id`, both included."""

    first: uuid.UUID
    last: uuid.UUID


class Portion(NamedTuple):
    """Some of one user's entries, by their `seq`."""

    user_id: uuid.UUID
    after: int
    until: int
    """The last one of them."""


Users = Span | list[uuid.UUID]
"""Whose books are read; a span is read faster, since the tables lie in its order."""

_BETWEEN = "user_id BETWEEN :first AND :last"
_LISTED = "user_id = ANY (:user_ids)"
_ENTRIES_OF_ONE = "user_id = :user_id AND seq > :after AND seq <= :until"
_IDS = ARRAY(Uuid())
_TYPES: dict[str, TypeEngine[Any]] = {
    **dict.fromkeys(("first", "last", "user_id"), Uuid()),
    "user_ids": _IDS,
}
_LEDGER = "SELECT uuid_send(ledger_id), chained_at IS NOT NULL FROM credit_ledgers"
_REVERSALS = (
    "SELECT uuid_send(user_id), transaction_id, reversal_id, kind, status, amount_cents, currency"
    " FROM stripe_reversals JOIN"
    " (SELECT user_id, transaction_id FROM transactions WHERE {condition}) AS purchases"
    " USING (transaction_id) ORDER BY user_id, reversal_id"
)
_USERS = (
    "SELECT uuid_send(user_id), user_id, credits_balance, credits_version"
    " FROM users WHERE {condition} ORDER BY user_id"
)


def _rows_of(table: str, columns: Iterable[str], order: str = "seq") -> str:
    """A statement without its condition; in front of each row whose it is, as bytes."""
    return (
        f"SELECT uuid_send(user_id), {', '.join(columns)} FROM {table}"  # noqa: S608  our own names
        f" WHERE {{condition}} ORDER BY user_id, {order}"
    )


_TABLES: tuple[tuple[str, Callable[[tuple[Any, ...]], Any]], ...] = (
    (_rows_of("credit_entries", COLUMNS[Part.ENTRIES][1:]), partial(tuple.__new__, EntryRow)),
    (
        _rows_of("credit_postings", COLUMNS[Part.POSTINGS][1:], "seq, lot_seq"),
        partial(tuple.__new__, PostingRow),
    ),
    (_rows_of("credit_lots", COLUMNS[Part.NEW_LOTS][1:]), partial(tuple.__new__, LotRow)),
    (_rows_of("credit_holds", COLUMNS[Part.NEW_HOLDS][1:]), partial(tuple.__new__, HoldRow)),
    (_rows_of("credit_debts", COLUMNS[Part.DEBTS][1:]), partial(tuple.__new__, DebtRow)),
    (_rows_of("credit_entry_metadata", ["seq"]), itemgetter(0)),
    (
        _rows_of("transactions", PurchaseRow._fields[:-1], "transaction_id"),
        lambda row: PurchaseRow._make((*row, ())),
    ),
)
"""In the order of the fields of `StoredRows`, the first of which are those of `HashedRows`."""
_HASHED = len(HashedRows._fields)


def begin_snapshot(session: Session) -> None:
    """Have the session's database transaction, which is to begin now, see one snapshot only.

    Its instants are in UTC: those of a zone whose clock goes back cannot all be compared.
    """
    session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    session.execute(text("SET LOCAL TimeZone = 'UTC'"))


def versions_of(users: Users) -> Select[uuid.UUID, int]:
    """How many entries these users have, by `user_id`."""
    versions = select(User.user_id, User.credits_version).order_by(User.user_id)
    if isinstance(users, Span):
        return versions.where(User.user_id.between(*users))
    return versions.where(User.user_id == func.any(cast(users, _IDS)))


def portions_of(
    versions: Sequence[Row[uuid.UUID, int]],
) -> tuple[list[list[uuid.UUID]], list[uuid.UUID]]:
    """Neighbours whose journals fit into memory together, and users whose own does not."""
    portions: list[list[uuid.UUID]] = []
    too_long: list[uuid.UUID] = []
    room = 0
    for user_id, version in versions:
        if version > JOURNAL_MAX:
            too_long.append(user_id)
            room = -1  # who comes after is no neighbour of who came before
            continue
        if version > room or not portions:
            portions.append([])
            room = PORTION_ENTRIES
        portions[-1].append(user_id)
        room -= version
    return portions, too_long


def fetch_rows(session: Session, users: Users) -> list[StoredRows | UnreadableRows]:
    """The rows of these users in the order of `user_id`; who is no user is missing.

    `begin_snapshot` comes first wherever others write meanwhile.

    Raises:
        DatabaseBusy: a passing condition of the database.
    """
    found = _fetch(session, _USERS, users)
    try:
        tables = [_by_user(_fetch(session, statement, users), made) for statement, made in _TABLES]
        reversals = _by_user(_fetch(session, _REVERSALS, users), tuple)
    except psycopg.DataError as error:
        # What a driver cannot read: it is asked for user by user whose it is.
        if len(found) == 1:
            return [UnreadableRows(found[0][1], str(error))]
        return [rows for row in found for rows in fetch_rows(session, Span(row[1], row[1]))]
    ledger = read_ledger(session)
    everybody: list[StoredRows | UnreadableRows] = []
    for whose, user_id, balance, version in found:
        *books, purchases = [table.get(whose, ()) for table in tables]
        if purchases:
            purchases = _with_reversals(purchases, reversals.get(whose, ()))
        everybody.append(StoredRows._make((ledger, user_id, balance, version, *books, purchases)))
    return everybody


def read_ledger(session: Session) -> LedgerRow:
    """Which ledger this is; where nothing says so, no chain begins as it should."""
    row = session.execute(text(_LEDGER)).one_or_none()
    return LedgerRow(b"", True) if row is None else LedgerRow(bytes(row[0]), row[1])


def fetch_hashed(session: Session, users: list[uuid.UUID] | Portion) -> dict[bytes, HashedRows]:
    """What entries' hashes are made of: all of each of these users, or some of one user's.

    By the octets of `user_id`; who has no entry there is missing.

    Raises:
        DatabaseBusy: a passing condition of the database.
        psycopg.DataError: a value that the driver cannot read.
    """
    entries, *others = (
        _by_user(_fetch(session, statement, users), made) for statement, made in _TABLES[:_HASHED]
    )
    return {
        whose: HashedRows._make((of_user, *(table.get(whose, ()) for table in others)))
        for whose, of_user in entries.items()
    }


def _by_user(
    rows: Iterable[tuple[Any, ...]], made: Callable[[tuple[Any, ...]], Any]
) -> dict[bytes, Sequence[Any]]:
    """A table's rows, which come user after user, by whose they are."""
    return {
        whose: list(map(made, map(_WITHOUT_WHOSE, group))) for whose, group in groupby(rows, _WHOSE)
    }


_WHOSE = itemgetter(0)
_WITHOUT_WHOSE = itemgetter(slice(1, None))


def _with_reversals(
    purchases: Sequence[PurchaseRow], reversals: Sequence[tuple[Any, ...]]
) -> Sequence[PurchaseRow]:
    by_purchase: defaultdict[uuid.UUID, list[ReversalRow]] = defaultdict(list)
    for transaction_id, *reversal in reversals:
        by_purchase[transaction_id].append(ReversalRow(*reversal))
    return [
        purchase._replace(reversals=by_purchase[purchase.transaction_id]) for purchase in purchases
    ]


def _fetch(session: Session, statement: str, users: Users | Portion) -> Sequence[tuple[Any, ...]]:
    """What a statement says of these users.

    Raises:
        psycopg.DataError: a value that the driver cannot read.
    """
    parameters: dict[str, Any]
    if isinstance(users, Span):
        condition, parameters = _BETWEEN, users._asdict()
    elif isinstance(users, Portion):
        condition, parameters = _ENTRIES_OF_ONE, users._asdict()
    else:
        condition, parameters = _LISTED, {"user_ids": users}
    asked = text(statement.format(condition=condition)).bindparams(
        *(bindparam(name, type_=_TYPES.get(name)) for name in parameters)
    )
    connection = session.connection()
    with _in_binary(connection):
        cursor = connection.execute(asked, parameters).cursor
        return cursor.fetchall() if cursor else ()


@contextmanager
def _in_binary(connection: Connection) -> Generator[None]:
    """Have psycopg ask for its results in binary, as asyncpg always does."""
    raw: Any = connection.connection.driver_connection
    if connection.dialect.driver != "psycopg":
        yield
        return
    before, raw.cursor_factory = raw.cursor_factory, _BinaryCursor
    try:
        yield
    finally:
        raw.cursor_factory = before


class _BinaryCursor(psycopg.Cursor[Any]):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.format = psycopg.pq.Format.BINARY
