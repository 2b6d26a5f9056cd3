"""Has each group number its notices apart from all others, so that groups can be brought together.

Numbers are unique over all users where groups have no schemas, and a group counts by itself. So
each counts in a range of its own, which lies above all that was counted before: a user's notices
stay in their order whichever group, or none, the user is brought to.
"""

from collections.abc import Sequence

from psycopg import sql
from sqlalchemy import Connection

NOTICES = "credit_notices_number_seq"
_RANGE_BITS = 36
"""Some 69 thousand million notices of each group; some 130,000 ranges below 2^53, which is as far
as those count who take JSON's numbers for floating-point ones."""


def highest_number(connection: Connection, schemas: Sequence[str], sequence: str = NOTICES) -> int:
    """The highest that was counted in any of these schemas; 0 where none was."""
    found = connection.exec_driver_sql(
        "SELECT coalesce(max(last_value), 0) FROM pg_sequences"
        " WHERE sequencename = %s AND schemaname = ANY (%s)",
        (sequence, list(schemas)),
    )
    highest: int = found.scalar_one()
    return highest


def count_on(connection: Connection, schema: str, after: int, sequence: str = NOTICES) -> None:
    """Have this schema's next number be beyond `after`."""
    if highest_number(connection, [schema], sequence) < after:
        _set(connection, schema, sequence, after)


def count_apart(
    connection: Connection, schema: str, all_groups: Sequence[str], after: int = 0
) -> None:
    """Have this group count its notices in a range of its own, beyond `after`."""
    own = highest_number(connection, [schema])
    if own <= after or not own >> _RANGE_BITS:
        counted = max(after, highest_number(connection, all_groups))
        _set(connection, schema, NOTICES, ((counted >> _RANGE_BITS) + 1) << _RANGE_BITS)


def _set(connection: Connection, schema: str, sequence: str, number: int) -> None:
    named = sql.Identifier(schema, sequence).as_string()
    connection.exec_driver_sql("SELECT setval(%s::regclass, %s)", (named, number))
