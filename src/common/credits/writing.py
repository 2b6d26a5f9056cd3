"""The one statement that writes users' books, built from the models for what there is to write.

One, because the walls check at the end of each statement that the books balance; over arrays, so
that a batch costs no more round trips than a single operation.
"""

from enum import StrEnum
from functools import cache
from typing import Any, cast

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Table,
    Text,
    Update,
    bindparam,
    column,
    func,
    insert,
    select,
    update,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql.selectable import CTE, TableValuedAlias
from sqlalchemy.types import TypeEngine

from src.common.models.base import Base
from src.common.models.credit_entry import CreditEntry, CreditEntryMetadata, CreditPosting
from src.common.models.credit_hold import CreditDebt, CreditHold
from src.common.models.credit_lot import CreditLot
from src.common.models.user import User


class Part(StrEnum):
    """What one write may consist of; every write has entries and users."""

    ENTRIES = "entries"
    NEW_LOTS = "new_lots"
    POSTINGS = "postings"
    NOTES = "notes"
    NEW_HOLDS = "new_holds"
    LOTS = "lots"
    HOLDS = "holds"
    DEBTS = "debts"
    USERS = "users"


COLUMNS: dict[Part, tuple[str, ...]] = {
    Part.ENTRIES: (
        *("user_id", "seq", "kind", "amount", "balance_after", "result_balance", "captured"),
        *("related_seq", "hold_expires_at", "idempotency_key", "request_digest", "reference"),
        *("actor", "effective_at", "created_at"),
    ),
    Part.NEW_LOTS: (
        *("user_id", "seq", "source", "transaction_id", "priority", "granted", "expires_at"),
        *("remaining", "last_seq", "is_open"),
    ),
    Part.POSTINGS: ("user_id", "seq", "lot_seq", "amount", "remaining_after"),
    Part.NOTES: ("user_id", "seq", "document"),
    Part.NEW_HOLDS: ("user_id", "seq", "amount", "captured", "status", "expires_at"),
    Part.LOTS: ("user_id", "seq", "remaining", "last_seq", "is_open"),
    Part.HOLDS: ("user_id", "seq", "captured", "status", "expires_at"),
    Part.DEBTS: ("user_id", "seq", "outstanding", "opening_debt"),
    Part.USERS: ("user_id", "credits_balance", "credits_version"),
}
"""What a row of each part holds, in the order in which `storage.py` gives it."""

_MODELS: dict[Part, type[Base]] = {
    Part.ENTRIES: CreditEntry,
    Part.NEW_LOTS: CreditLot,
    Part.POSTINGS: CreditPosting,
    Part.NOTES: CreditEntryMetadata,
    Part.NEW_HOLDS: CreditHold,
    Part.LOTS: CreditLot,
    Part.HOLDS: CreditHold,
    Part.DEBTS: CreditDebt,
    Part.USERS: User,
}
_ADDED = (Part.ENTRIES, Part.NEW_LOTS, Part.POSTINGS, Part.NOTES, Part.NEW_HOLDS)
_CHANGED = (Part.LOTS, Part.HOLDS)


@cache
def write_statement(parts: frozenset[Part]) -> Update:
    """Write these parts of users' books, given as arrays, a parameter a column (`parameter_of`)."""
    steps = [_insertion(part).cte(part) for part in _ADDED if part in parts]
    steps += [_change(part).cte(part) for part in _CHANGED if part in parts]
    if Part.DEBTS in parts:
        steps.append(_debts())
    return _change(Part.USERS).add_cte(*steps)


def parameter_of(part: Part, name: str) -> str:
    """The name of the array that holds a column of a part."""
    return f"{part}_{name}"


def _table(part: Part) -> Table:
    return cast("Table", _MODELS[part].__table__)


def _given(part: Part) -> TableValuedAlias:
    """The rows of a part, from its arrays."""
    types = {name: _transported(_table(part).c[name].type) for name in COLUMNS[part]}
    arrays = [
        bindparam(parameter_of(part, name), type_=ARRAY(type_)) for name, type_ in types.items()
    ]
    columns = [column(name, type_) for name, type_ in types.items()]
    return func.unnest(*arrays).table_valued(*columns, name=f"given_{part}").render_derived()


def _transported(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """JSON travels as text: an array of documents would need an encoding of its own."""
    return Text() if isinstance(type_, JSONB) else type_


def _insertion(part: Part) -> Any:
    table, given = _table(part), _given(part)
    values: list[ColumnElement[Any]] = [
        sql_cast(given.c[name], JSONB) if isinstance(table.c[name].type, JSONB) else given.c[name]
        for name in COLUMNS[part]
    ]
    return insert(table).from_select(COLUMNS[part], select(*values))


def _change(part: Part) -> Update:
    """Update rows by their primary key."""
    table, given = _table(part), _given(part)
    keys = [name for name in COLUMNS[part] if table.c[name].primary_key]
    others = [name for name in COLUMNS[part] if name not in keys]
    return (
        update(table)
        .where(*(table.c[name] == given.c[name] for name in keys))
        .values({name: given.c[name] for name in others})
    )


def _debts() -> CTE:
    table, given = _table(Part.DEBTS), _given(Part.DEBTS)
    statement = upsert(table).from_select(COLUMNS[Part.DEBTS], select(*given.c))
    return statement.on_conflict_do_update(
        index_elements=["user_id", "seq"], set_={"outstanding": statement.excluded.outstanding}
    ).cte(Part.DEBTS)
