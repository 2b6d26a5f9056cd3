"""The one statement that writes users' books.

One, because the triggers check at the end of each statement that the books balance; over arrays, so
that a batch costs no more round trips than a single operation.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, cast

import msgspec
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    Table,
    Text,
    Update,
    and_,
    bindparam,
    column,
    exists,
    func,
    insert,
    literal_column,
    select,
    true,
    update,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import JSONB, distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql.selectable import CTE, FromClause, Subquery
from sqlalchemy.types import TypeEngine

from src.common.models.base import Base
from src.common.models.credit_entry import CreditEntry, CreditEntryMetadata, CreditPosting
from src.common.models.credit_hold import CreditDebt, CreditHold
from src.common.models.credit_lot import CreditLot
from src.common.models.user import User


class Part(StrEnum):
    """What one write may consist of; every write has entries."""

    ENTRIES = "entries"
    NEW_LOTS = "new_lots"
    POSTINGS = "postings"
    NOTES = "notes"
    NEW_HOLDS = "new_holds"
    HOLDS = "holds"
    DEBTS = "debts"


COLUMNS: dict[Part, tuple[str, ...]] = {
    Part.ENTRIES: (
        *("user_id", "seq", "kind", "amount", "balance_after", "result_balance", "captured"),
        *("related_seq", "hold_expires_at", "idempotency_key", "request_digest", "reference"),
        *("actor", "effective_at", "created_at", "entry_hash"),
    ),
    Part.NEW_LOTS: (
        *("user_id", "seq", "source", "transaction_id", "priority", "granted", "expires_at"),
        *("remaining", "last_seq", "is_open"),
    ),
    Part.POSTINGS: ("user_id", "seq", "lot_seq", "amount", "remaining_after"),
    Part.NOTES: ("user_id", "seq", "document"),
    Part.NEW_HOLDS: ("user_id", "seq", "amount", "captured", "status", "expires_at"),
    Part.HOLDS: ("user_id", "seq", "captured", "status", "expires_at"),
    Part.DEBTS: ("user_id", "seq", "outstanding", "opening_debt"),
}
"""What a row of each part holds, in the order in which `storage.py` gives it.

What lots and users change to is what their last postings and entries say, so it is not sent."""

SAME_AS = {"result_balance": "balance_after", "effective_at": "created_at"}
"""Columns of entries that mostly equal another, and are not sent where they all do."""

SENT_ONCE = frozenset({"kind", "actor", "created_at"})
"""Columns of entries that are often the same for all, and then sent as one value."""

Shape = frozenset[tuple[Part, tuple[str, ...], tuple[str, ...]]]
"""The parts of a write, which of their columns are sent as arrays, and which as one value.

The others are NULL, or `SAME_AS`.
"""


SHAPES_MAX = 100
"""How many shapes' statements are kept; a connection keeps no more prepared either."""

_MODELS: dict[Part, type[Base]] = {
    Part.ENTRIES: CreditEntry,
    Part.NEW_LOTS: CreditLot,
    Part.POSTINGS: CreditPosting,
    Part.NOTES: CreditEntryMetadata,
    Part.NEW_HOLDS: CreditHold,
    Part.HOLDS: CreditHold,
    Part.DEBTS: CreditDebt,
}


def table_of(model: type[Base]) -> Table:
    """A model's table, as the type that it is."""
    return cast("Table", model.__table__)


_TABLES = {part: table_of(model) for part, model in _MODELS.items()}
LAST_OF_LOTS = ("user_id", "seq", "lot_seq", "remaining_after")
LAST_OF_USERS = ("user_id", "seq", "balance_after")
_NUMBERS = {
    part: {name for name in names if isinstance(_TABLES[part].c[name].type, Integer)}
    for part, names in COLUMNS.items()
}
ALWAYS = true()
_JSON = msgspec.json.Encoder()
Rows = Sequence[tuple[Any, ...]]


def shape_and_arrays(parts: Mapping[Part, Rows]) -> tuple[Shape, dict[str, Any]]:
    """How to write these rows, and the parameters of `write_statement`: an array a column."""
    return shaped(parts, _array_of)


def shaped(
    parts: Mapping[Part, Rows], word: Callable[[Part, str, list[Any]], Mapping[str, Any]]
) -> tuple[Shape, dict[str, Any]]:
    """What says nothing is left out: every element costs the driver time."""
    shape: list[tuple[Part, tuple[str, ...], tuple[str, ...]]] = []
    parameters: dict[str, Any] = {}
    for part, rows in parts.items():
        if not rows:
            continue
        arrays = dict(zip(COLUMNS[part], map(list, zip(*rows, strict=True)), strict=True))
        sent: list[str] = []
        sent_once: list[str] = []
        for name, values in arrays.items():
            first = values[0]
            if name in SENT_ONCE and values.count(first) == len(values):
                sent_once.append(name)
                parameters[parameter(part, name)] = first
            elif values != arrays.get(SAME_AS.get(name, "")) and (
                first is not None or values.count(None) < len(values)
            ):
                sent.append(name)
                parameters |= word(part, name, values)
        shape.append((part, tuple(sent), tuple(sent_once)))
    return frozenset(shape), parameters


def _array_of(part: Part, name: str, values: list[Any]) -> Mapping[str, Any]:
    is_number = name in _NUMBERS[part]
    return {parameter(part, name): _literal(values) if is_number else values}


@lru_cache(SHAPES_MAX)
def write_statement(shape: Shape, *, is_guarded: bool = False) -> Update:
    """The statement that writes users' books in this shape; each column is an array parameter.

    A guarded one locks the users itself and waits for nobody. It writes all or nothing. It writes
    only if all `users_count` users are free, still at the version before their first entry here,
    and active, except those in `inactive_ids`. Activity is checked because deactivating a user does
    not change the version.
    """
    may_write = _nobody_came_between() if is_guarded else ALWAYS
    steps = insertions(shape, _given, may_write)
    if any(part is Part.POSTINGS for part, _, _ in shape):
        lots = last_of(_given(Part.POSTINGS, LAST_OF_LOTS), "user_id", "lot_seq")
        steps.append(change_of_lots(lots, may_write))
    newest = last_of(_given(Part.ENTRIES, LAST_OF_USERS), "user_id")
    return change_of_users(newest, may_write).add_cte(*steps)


def insertions(
    shape: Shape,
    given: Callable[[Part, Sequence[str]], FromClause],
    may_write: ColumnElement[bool],
) -> list[CTE]:
    """What is written besides lots and users; `given` are the rows of a part, these columns."""
    steps: list[CTE] = []
    for part, sent, once in sorted(shape):
        rows = given(part, sent)
        if part is Part.HOLDS:
            steps.append(_change_of_holds(rows).where(may_write).cte(part))
        elif part is Part.DEBTS:
            steps.append(_debts(rows, may_write))
        else:
            steps.append(_insertion(part, rows, once, may_write).cte(part))
    return steps


def _nobody_came_between() -> ColumnElement[bool]:
    """Whether the users could all be locked as their books were read."""
    users, entries = table_of(User), _given(Part.ENTRIES, ("user_id", "seq"))
    inactive = bindparam("inactive_ids", type_=ARRAY(users.c.user_id.type))
    read_at = (
        select(entries.c.user_id, (func.min(entries.c.seq) - literal_column("1")).label("version"))
        .group_by(entries.c.user_id)
        .subquery("read_at")
    )
    free = (
        select(users.c.user_id)
        .join(
            read_at,
            and_(
                users.c.user_id == read_at.c.user_id,
                users.c.credits_version == read_at.c.version,
            ),
        )
        .where(users.c.is_active | (users.c.user_id == func.any(inactive)))
        .order_by(users.c.user_id)
        .with_for_update(key_share=True, skip_locked=True, of=users)
        .cte("free")
    )
    count = select(func.count()).select_from(free).scalar_subquery()
    return count == bindparam("users_count", type_=Integer)


def parameter(part: Part, name: str, number: int | None = None) -> str:
    """The name of what a part's column is given by, or of its value in one row."""
    return f"{part}_{name}" if number is None else f"{part}_{name}_{number}"


def _given(part: Part, names: Sequence[str]) -> FromClause:
    """The rows of a part, from the arrays of these columns."""
    types = types_of(part, names)
    columns = [column(name, type_) for name, type_ in types.items()]
    arrays = [_array(parameter(part, name), type_) for name, type_ in types.items()]
    return func.unnest(*arrays).table_valued(*columns, name=f"given_{part}").render_derived()


def types_of(part: Part, names: Iterable[str]) -> dict[str, TypeEngine[Any]]:
    """The types in which a part's columns are sent."""
    return {name: transported(_TABLES[part].c[name].type) for name in names}


def _array(name: str, type_: TypeEngine[Any]) -> ColumnElement[Any]:
    if isinstance(type_, Integer):
        return sql_cast(bindparam(name, type_=Text), ARRAY(type_))
    return bindparam(name, type_=ARRAY(type_))


def _literal(numbers: Sequence[int | None]) -> str:
    """An array of numbers as PostgreSQL writes it.

    Drivers look at each element of an array: for a number that costs them ten times as much.
    """
    return f"{{{_JSON.encode(numbers).decode()[1:-1]}}}"


def transported(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """JSON travels as text: an array of documents would need an encoding of its own."""
    return Text() if isinstance(type_, JSONB) else type_


def _insertion(
    part: Part,
    given: FromClause,
    once: Sequence[str],
    may_write: ColumnElement[bool],
) -> Any:
    table = _TABLES[part]
    values: dict[str, ColumnElement[Any]] = {
        name: sql_cast(value, JSONB) if isinstance(table.c[name].type, JSONB) else value
        for name, value in given.c.items()
    }
    for name in once:
        values[name] = bindparam(parameter(part, name), type_=table.c[name].type)
    if part is Part.ENTRIES:
        for name, other in SAME_AS.items():
            values.setdefault(name, values[other])
    if part is Part.NOTES:
        may_write &= ~_is_erased(given)
    return insert(table).from_select(list(values), select(*values.values()).where(may_write))


def _is_erased(given: FromClause) -> ColumnElement[bool]:
    """Whether the user was erased: what callers note about credits after that is dropped."""
    users = table_of(User)
    return exists().where(users.c.user_id == given.c.user_id, users.c.erased_at.is_not(None))


def last_of(given: FromClause, *key: str) -> Subquery:
    """Of rows with the same key the one with the highest `seq`."""
    columns = [given.c[name] for name in key]
    rows = select(*given.c).ext(distinct_on(*columns))
    return rows.order_by(*columns, given.c.seq.desc()).subquery()


def change_of_lots(last: FromClause, may_write: ColumnElement[bool]) -> CTE:
    """Each lot is what its last posting says."""
    lots = table_of(CreditLot)
    return (
        update(lots)
        .where(lots.c.user_id == last.c.user_id, lots.c.seq == last.c.lot_seq, may_write)
        .values(
            remaining=last.c.remaining_after,
            last_seq=last.c.seq,
            is_open=last.c.remaining_after > literal_column("0"),
        )
        .cte("lots")
    )


def _change_of_holds(given: FromClause) -> Update:
    holds = table_of(CreditHold)
    return (
        update(holds)
        .where(holds.c.user_id == given.c.user_id, holds.c.seq == given.c.seq)
        .values({name: given.c[name] for name in ("captured", "status", "expires_at")})
    )


def change_of_users(last: FromClause, may_write: ColumnElement[bool]) -> Update:
    """Each user is what the last entry says."""
    users = table_of(User)
    return (
        update(users)
        .where(users.c.user_id == last.c.user_id, may_write)
        .values(credits_balance=last.c.balance_after, credits_version=last.c.seq)
    )


def _debts(given: FromClause, may_write: ColumnElement[bool]) -> CTE:
    table = table_of(CreditDebt)
    # A condition also parts SELECT's FROM from ON CONFLICT, as PostgreSQL's grammar wants.
    statement = upsert(table).from_select(COLUMNS[Part.DEBTS], select(*given.c).where(may_write))
    return statement.on_conflict_do_update(
        index_elements=["user_id", "seq"], set_={"outstanding": statement.excluded.outstanding}
    ).cte(Part.DEBTS)
