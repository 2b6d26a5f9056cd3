"""Puts one form of the ledger's triggers in the place of the other (decision 0065).

`DATABASE_LEDGER_TRIGGERS` says which; `flashslides db upgrade` does it, as `alembic upgrade head`
does. The first form's triggers are switched off, never dropped, so that migrations find them.
"""

from collections.abc import Mapping

from sqlalchemy import Connection, text

from src.common.database_settings import LedgerTriggers
from src.common.models.ledger_triggers_at_commit import (
    COMMIT_FUNCTIONS,
    CREATE_AT_COMMIT,
    CREATE_COMMIT_FUNCTIONS,
    DROP_AT_COMMIT,
    REPLACED,
)
from src.common.postgres.sides import look_up_in_public, looked_up_in_public

_TRIGGERS = text("""
    SELECT tgname, relname, tgenabled IN ('O', 'A')
    FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
    WHERE NOT tgisinternal AND relnamespace = current_schema()::regnamespace
""")
_FUNCTIONS = text("""
    SELECT proname, prosrc FROM pg_proc
    WHERE pronamespace = current_schema()::regnamespace AND proname = ANY (:names)
""")


def put_in_place(connection: Connection, form: LedgerTriggers) -> bool:
    """Have the ledger checked in this form from this database transaction's COMMIT on.

    Until then it is checked as before, and others wait for moments. Where it is checked so already
    nothing is locked. Whether anything was changed.
    """
    there = _triggers(connection)
    if _is_in_place(connection, form, there):
        return False
    new: tuple[str, ...] = ()
    switch = "ENABLE"
    if form is LedgerTriggers.COMMIT:
        new, switch = (*CREATE_COMMIT_FUNCTIONS, *CREATE_AT_COMMIT.values()), "DISABLE"
    switched = [
        f"ALTER TABLE {table} {switch} TRIGGER {name}"
        for name, table in REPLACED
        if (name, table) in there
    ]
    limits = ("SET LOCAL lock_timeout = '3s'", "SET LOCAL statement_timeout = '60s'")
    for statement in (*limits, *DROP_AT_COMMIT, *new, *switched):
        connection.execute(text(statement))
    look_up_in_public(connection)
    return True


def is_in_place(connection: Connection, form: LedgerTriggers) -> bool:
    """Whether the ledger is checked in this form, as this release has it, and in no other."""
    return _is_in_place(connection, form, _triggers(connection))


def _is_in_place(
    connection: Connection, form: LedgerTriggers, there: Mapping[tuple[str, str], bool]
) -> bool:
    replaced = {there[key] for key in REPLACED if key in there}
    added = {there.get(key) for key in CREATE_AT_COMMIT}
    if form is LedgerTriggers.STATEMENT:
        return False not in replaced and added == {None}
    return True not in replaced and added == {True} and _are_as_made(connection)


def _are_as_made(connection: Connection) -> bool:
    """Whether the second form's functions are there, with this release's text."""
    found = connection.execute(_FUNCTIONS, {"names": list(COMMIT_FUNCTIONS)})
    bodies = {name: body.rstrip() for name, body in found}
    here = connection.scalars(text("SELECT quote_ident(current_schema())")).one()
    return bodies == {
        name: looked_up_in_public(body.replace("@here", here), here).rstrip()
        for name, body in COMMIT_FUNCTIONS.items()
    }


def _triggers(connection: Connection) -> dict[tuple[str, str], bool]:
    """By name and table, whether it is switched on."""
    return {(name, table): is_on for name, table, is_on in connection.execute(_TRIGGERS)}
