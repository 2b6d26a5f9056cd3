"""Divides a database: leaves in `public` what is everybody's (decision 0066).

`flashslides db upgrade` does it, once the database is at the newest revision, where `SHARDING` is
`schemas`. The tables of users that it drops have to be empty: users come to groups that are made by
the migrations (`creation.py`), by signing up or by a copy (`copying/`).
"""

from sqlalchemy import Connection, text

from src.common.exceptions import SettingsError
from src.common.postgres.sides import ON_BOTH_SIDES, USERS_TABLES, side_here

_DROPPED = sorted(USERS_TABLES - ON_BOTH_SIDES)
_HAS_USERS = (
    "SHARDING=schemas: the table {table} in public has rows. Divide a new database, and copy this "
    "one into it: `flashslides shards copy`; or leave SHARDING=none"
)
_FUNCTIONS = text("""
    SELECT string_agg(DISTINCT oid::regprocedure::text, ', ') FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace
      AND (proname ~ '^(credit_|user_search_)'
        OR oid IN (SELECT tgfoid FROM pg_trigger
          WHERE tgrelid = ANY (CAST(:dropped AS regclass[]))))
      AND oid NOT IN (SELECT tgfoid FROM pg_trigger
        WHERE tgrelid <> ALL (CAST(:dropped AS regclass[])))
      AND proname <> 'credit_ledger_unbalanced'  -- which those that stay call
""")
_DETACH = (
    "ALTER TABLE approvals DROP CONSTRAINT fk_approvals_user_id_users",
    "ALTER TABLE approvals DROP CONSTRAINT fk_approvals_transaction_id_transactions",
    (
        "ALTER TABLE approvals ADD CONSTRAINT fk_approvals_user_id_users_directory"
        " FOREIGN KEY (user_id) REFERENCES users_directory (user_id)"
    ),
    "ALTER TABLE stripe_reversals DROP CONSTRAINT fk_stripe_reversals_transaction_id_transactions",
    (
        "ALTER TABLE stripe_reversals ADD CONSTRAINT ck_stripe_reversals_waits"
        " CHECK (transaction_id IS NULL)"
    ),
)


def divide(connection: Connection) -> bool:
    """Leave in `public` what is everybody's, from this database transaction's COMMIT on.

    Whether that was still to do.

    Raises:
        SettingsError: there are users.
    """
    if side_here(connection) is not None:
        return False
    for limit in ("SET LOCAL lock_timeout = '3s'", "SET LOCAL statement_timeout = '60s'"):
        connection.exec_driver_sql(limit)
    connection.exec_driver_sql(f"LOCK TABLE {', '.join(_DROPPED)} IN ACCESS EXCLUSIVE MODE")
    for table in _DROPPED:
        if connection.exec_driver_sql(f"SELECT FROM {table} LIMIT 1").first() is not None:
            raise SettingsError(_HAS_USERS.format(table=table))
    functions = connection.execute(_FUNCTIONS, {"dropped": _DROPPED}).scalar_one()
    for statement in _DETACH:
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql(f"DROP TABLE {', '.join(_DROPPED)}")
    if functions:
        connection.exec_driver_sql(f"DROP FUNCTION {functions}")
    return True
