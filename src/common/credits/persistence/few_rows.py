"""The same write of one user's few rows: each value is a parameter of its own.

How long an array is the planner sees from its values only. So a plan for any values looks dearer to
it than one for these, and it plans at every execution, which takes longer than executing.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, bindparam, column
from sqlalchemy import values as sql_values
from sqlalchemy.sql.dml import ReturningUpdate
from sqlalchemy.sql.selectable import FromClause

from src.common.credits.persistence.writing import (
    ALWAYS,
    LAST_OF_LOTS,
    LAST_OF_USERS,
    SHAPES_MAX,
    Part,
    Rows,
    Shape,
    change_of_lots,
    change_of_users,
    insertions,
    last_of,
    parameter,
    shaped,
    table_of,
    types_of,
)
from src.common.models.user import User


class Counts(NamedTuple):
    """How many rows there are, where all are of one user and each value is sent by itself."""

    of_parts: tuple[tuple[Part, int], ...]
    changes_lots: bool
    """Whether any of the postings is of a lot that was there before."""


FEW_ROWS = 3
"""As many rows may a part have for that: each number of rows is a statement of its own."""

_USER = "user_id"
"""One for all rows of all parts, where each value is sent by itself."""


def shape_and_values(
    parts: Mapping[Part, Rows],
) -> tuple[Shape, Counts, dict[str, Any]] | None:
    """How to write these rows of one user, and the parameters; None where they are not few."""
    if max(map(len, parts.values())) > FEW_ROWS:
        return None
    made = {seq for _, seq, *_ in parts[Part.NEW_LOTS]}
    changes_lots = any(lot_seq not in made for _, _, lot_seq, *_ in parts[Part.POSTINGS])
    counts = tuple((part, len(rows)) for part, rows in parts.items() if rows)
    shape, parameters = shaped(parts, _values_of)
    return shape, Counts(counts, changes_lots), parameters


def _values_of(part: Part, name: str, values: list[Any]) -> Mapping[str, Any]:
    if name == _USER:
        return {_USER: values[0]}
    return {parameter(part, name, number): value for number, value in enumerate(values)}


@lru_cache(SHAPES_MAX)
def write_statement_of_one(
    shape: Shape, counts: Counts, may_write: ColumnElement[bool] = ALWAYS
) -> ReturningUpdate[*tuple[Any, ...]]:
    """Write one user's few rows in this shape, given as values, a parameter each.

    Nothing at all unless `may_write`, the very same object every time; it returns the user's new
    `updated_at`.
    """
    count_of = dict(counts.of_parts)

    def given(part: Part, names: Sequence[str]) -> FromClause:
        return _listed(part, names, range(count_of[part]))

    steps = insertions(shape, given, may_write)
    if counts.changes_lots:
        lots = given(Part.POSTINGS, LAST_OF_LOTS)
        steps.append(change_of_lots(last_of(lots, "user_id", "lot_seq"), may_write))
    newest = _listed(Part.ENTRIES, LAST_OF_USERS, [count_of[Part.ENTRIES] - 1])
    users = change_of_users(newest, may_write).add_cte(*steps)
    return users.returning(table_of(User).c.updated_at)


def _listed(part: Part, names: Sequence[str], numbers: Iterable[int]) -> FromClause:
    """The rows of a part that have these numbers, all of one user, value by value."""
    types = types_of(part, names)
    rows = [
        tuple(
            bindparam(_USER if name == _USER else parameter(part, name, number), type_=type_)
            for name, type_ in types.items()
        )
        for number in numbers
    ]
    columns = [column(name, type_) for name, type_ in types.items()]
    return sql_values(*columns, name=f"given_{part}").data(rows)
