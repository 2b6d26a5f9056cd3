"""What of a user can be searched for by any part, and the functions that index it (decision 0051).

An index on all groups of three characters finds a part of a text without reading every user. The
functions are PostgreSQL's own SQL, so that no extension is needed. `create_all` makes them, and so
does the migration that made the index.
"""

from sqlalchemy import Connection, Table, event, text

PART_LENGTH_MIN = 3
"""A shorter part has no group of three characters: the index knows nothing of it."""
TEXT_LENGTH_MAX = 500
"""So much of each name is searched."""

CREATE_FUNCTIONS = (
    f"""
CREATE OR REPLACE FUNCTION user_search_text(
  email text, first_name text, last_name text, company text
) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN lower(
  email || chr(10) || left(coalesce(first_name, ''), {TEXT_LENGTH_MAX}) || ' '
  || left(coalesce(last_name, ''), {TEXT_LENGTH_MAX}) || chr(10) || coalesce(company, ''))""",
    """
CREATE OR REPLACE FUNCTION user_search_trigrams(part text)
RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY(
  SELECT substr(part, place, 3) FROM generate_series(1, length(part) - 2) AS place)""",
)
DROP_FUNCTIONS = (
    "DROP FUNCTION user_search_trigrams(text)",
    "DROP FUNCTION user_search_text(text, text, text, text)",
)
IX_USERS_SEARCH = "ix_users_search"
INDEXED = (
    "user_search_trigrams(user_search_text("
    "email, first_name, last_name, preferences ->> 'company'))"
)
"""Of `users`: e-mail, full name and company, a line each, in small letters."""


def create_before_users(users: Table) -> None:
    """Have `create_all` make the functions too, before the table whose index needs them."""
    event.listen(users, "before_create", _create)


def _create(_table: Table, connection: Connection, **_others: object) -> None:
    for statement in CREATE_FUNCTIONS:
        connection.execute(text(statement))
