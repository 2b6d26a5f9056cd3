"""Which tables each group of users has for itself, and which are everybody's (decision 0066).

After the migration that introduced groups, each says whose tables it changes: `TABLES_OF =
Side.USERS` or `Side.EVERYBODY`. Where a schema has one side alone, the other side's migrations are
noted as done and do nothing.
"""

import re
from enum import StrEnum

from sqlalchemy import Connection, text

from src.common.postgres.routes import SHARED_SCHEMA, is_group

USERS_TABLES = frozenset(
    {
        *("users", "transactions", "checkout_orders", "charged_requests", "refund_requests"),
        *("credit_entries", "credit_postings", "credit_lots", "credit_holds", "credit_debts"),
        *("credit_entry_metadata", "credit_booking_failures", "credit_notices"),
        *("credit_ledgers", "stripe_reversals"),
    }
)
"""What each group has."""
ON_BOTH_SIDES = frozenset({"credit_ledgers", "stripe_reversals"})
"""Of these `public` has: the ledger's one id, the same in all groups; reversals that wait for their
payment, of which nobody knows yet whose it is."""

_FUNCTIONS = text("""
    SELECT pg_get_functiondef(oid) FROM pg_proc
    WHERE pronamespace = current_schema()::regnamespace AND prosrc ~ :pattern
""")


class Side(StrEnum):
    """Whose tables."""

    USERS = "users"
    EVERYBODY = "everybody"


def side_here(connection: Connection) -> Side | None:
    """Which side alone this connection's first schema has; None where it has both."""
    here, has_users, has_groups = connection.execute(
        text(
            "SELECT current_schema()::text, to_regclass(current_schema() || '.users') IS NOT NULL,"
            " to_regclass(current_schema() || '.user_groups') IS NOT NULL"
        )
    ).one()
    if here is not None and is_group(here):
        return Side.USERS
    return Side.EVERYBODY if has_groups and not has_users else None


def looked_up_in_public(definition: str, here: str) -> str:
    """A function's text where everybody's tables are in `public`; as it is but for groups."""
    if not is_group(here):
        return definition
    return re.sub(_pattern(here, r"\b"), rf"{SHARED_SCHEMA}.\1", definition)


def look_up_in_public(connection: Connection) -> None:
    """Have a group's functions look up in `public` what is everybody's."""
    here: str = connection.execute(text("SELECT current_schema()::text")).scalar_one()
    if not is_group(here):
        return
    found = connection.execute(_FUNCTIONS, {"pattern": _pattern(here, r"\y")})
    for definition in found.scalars().all():
        statement = looked_up_in_public(definition, here)
        connection.exec_driver_sql(statement.replace("%", "%%"))


def _pattern(here: str, word_boundary: str) -> str:
    from src.common.models import Base  # every table, which few commands need

    names = sorted({*Base.metadata.tables} - USERS_TABLES)
    return rf"{word_boundary}{here}\.({'|'.join(names)}){word_boundary}"
