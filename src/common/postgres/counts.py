"""Counts rows for people: exactly while they are few, else as the server's statistics estimate."""

from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Integer, func, literal_column, select, text
from sqlalchemy.orm import Session

from src.common.models.base import Base

BOUND = 10_000
"""As many rows are counted, whatever a table has."""
_ESTIMATE = text("SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(:name)")


class RowCount(NamedTuple):
    """How many rows there are, for people."""

    rows: int
    is_exact: bool
    """Else there are about as many, and more than `BOUND`."""

    def __str__(self) -> str:
        return f"{self.rows:,}" if self.is_exact else f"about {self.rows:,}"


def count_rows(session: Session, model: type[Base], *conditions: ColumnElement[bool]) -> RowCount:
    """How many rows of a table there are, or meet conditions that an index serves.

    More than `BOUND` are not counted. A whole table is then as large as its statistics say, and of
    rows with conditions there are that many at least.
    """
    one = literal_column("1", type_=Integer())
    first = select(one).select_from(model).where(*conditions).limit(BOUND + 1)
    counted: int = session.execute(select(func.count()).select_from(first.subquery())).scalar_one()
    if counted <= BOUND:
        return RowCount(counted, is_exact=True)
    estimated: Any = 0
    if not conditions:
        estimated = session.execute(_ESTIMATE, {"name": model.__tablename__}).scalar_one()
    return RowCount(max(int(estimated), BOUND), is_exact=False)
