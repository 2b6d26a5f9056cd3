"""The declarative base of every table: naming convention, column types, a safe repr."""

import datetime as dt
import uuid
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from sqlalchemy import DateTime, MetaData, func, inspect
from sqlalchemy.orm import DeclarativeBase, mapped_column

# From the first migration on, so that every constraint has a name code can react to.
NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

UuidPrimaryKey = Annotated[
    uuid.UUID,
    mapped_column(primary_key=True, default=uuid.uuid4, server_default=func.gen_random_uuid()),
]
Instant = Annotated[dt.datetime, mapped_column(DateTime(timezone=True))]
"""A point in time, stored in UTC; names end in `_at`."""
CreatedAt = Annotated[
    dt.datetime, mapped_column(DateTime(timezone=True), server_default=func.now())
]


PRIVATE = {"private": True}
"""The `info` of a column that nobody outside is shown."""


def text_array(values: Iterable[str]) -> str:
    """A literal of PostgreSQL's, of plain words: `'{purchase,promo}'::text[]`.

    In constraints in place of `IN (…)`: PostgreSQL keeps a node for each word of that, and reads
    them anew for every statement that writes to the table.
    """
    return f"'{{{','.join(values)}}}'::text[]"


class Base(DeclarativeBase):
    """What every model shares.

    Server-made values are fetched in the same round trip (`eager_defaults`), so that nothing is
    left expired, which under asyncio would be an error at the next attribute access.
    """

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    __mapper_args__: dict[str, Any] = {"eager_defaults": True}  # noqa: RUF012  SQLAlchemy's protocol

    def __repr__(self) -> str:
        """Class and identity only: safe on detached or expired objects, free of personal data."""
        state = inspect(self)
        identity = "transient" if state.identity is None else ", ".join(map(str, state.identity))
        return f"<{type(self).__name__} {identity}>"

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """The loaded columns and their values, private ones left out: what `dict(row)` gives.

        FastAPI shows a row that a route returns as it is through this, as the document's
        `GET /user/{user_id}` does; without it, it would show the password hash as well.
        """
        state = inspect(self)
        for attribute in state.mapper.column_attrs:
            if attribute.key in state.dict and not attribute.columns[0].info.get("private"):
                yield attribute.key, state.dict[attribute.key]
