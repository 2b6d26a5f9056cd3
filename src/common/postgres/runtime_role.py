"""The privileges of the role that a running service uses: enough for every operation.

The role owns nothing, so it can switch no trigger off. It migrates nothing: migrations run as the
owner. Nobody but the owner can create anything beside our tables: a function there that fits a call
better than PostgreSQL's own is taken in its place.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from psycopg import sql
from sqlalchemy import Connection

from src.common.postgres.citus import is_citus
from src.common.postgres.routes import SHARED_SCHEMA
from src.common.postgres.sides import ON_BOTH_SIDES, USERS_TABLES, Side, side_here

# Every privilege, by table; Citus needs more. What is missing is missing on purpose.
PRIVILEGES = {
    "users": "SELECT, INSERT, UPDATE",
    "transactions": (
        "SELECT, INSERT, UPDATE"
        " (payment_intent_id, invoice_id, stripe_account, livemode, refunded_cents,"
        " disputed_cents)"
    ),
    "checkout_orders": "SELECT, INSERT, UPDATE",
    "charged_requests": "SELECT, INSERT, UPDATE, DELETE",
    "stripe_events": "SELECT, INSERT, UPDATE",
    "stripe_reversals": (
        "SELECT, INSERT, UPDATE"
        " (payment_intent_id, transaction_id, stripe_account, amount_cents, moved_cents,"
        " currency, status, updated_at)"
    ),
    "refund_requests": "SELECT, INSERT, UPDATE",
    "reconciliations": "SELECT, INSERT, UPDATE",
    "unmatched_payments": "SELECT, INSERT, UPDATE",
    "api_keys": "SELECT, INSERT, UPDATE",
    "approvals": "SELECT, INSERT, UPDATE (status, decider, decided_at, reason, note)",
    "anchor_checkpoints": "SELECT, INSERT",
    "anchor_parts": "SELECT, INSERT, DELETE",
    "anchor_sinks": "SELECT, INSERT, UPDATE, DELETE",
    "anchor_turns": "SELECT, INSERT, UPDATE",
    "anchored_users": "SELECT, INSERT, UPDATE",
    "credit_entries": "SELECT, INSERT",
    "credit_ledgers": "SELECT",
    "credit_entry_metadata": "SELECT, INSERT, DELETE",
    "credit_postings": "SELECT, INSERT",
    "credit_lots": "SELECT, INSERT, UPDATE (remaining, last_seq, is_open)",
    "credit_holds": "SELECT, INSERT, UPDATE (captured, status, expires_at)",
    "credit_debts": "SELECT, INSERT, UPDATE (outstanding)",
    "credit_verifications": "SELECT, INSERT, UPDATE",
    "credit_booking_failures": "SELECT, INSERT, UPDATE, DELETE",
    # What a notice tells is written by triggers, as their owner; that of expiring credits is not.
    "credit_notices": (
        "SELECT, INSERT (user_id, endpoint_id, type, seq, data, created_at), DELETE, UPDATE"
        " (status, attempts, next_attempt_at, lease_expires_at, response_status, error,"
        " finished_at)"
    ),
    "notice_endpoints": "SELECT, INSERT, UPDATE, DELETE",
    "notice_endpoint_states": "SELECT, INSERT, UPDATE",
    "notice_secrets": "SELECT, INSERT, UPDATE (expires_at), DELETE",
    "worker_failures": "SELECT, INSERT, UPDATE",
    "worker_heartbeats": "SELECT, INSERT, UPDATE, DELETE",
    # When it was, and its number, are the database's to say.
    "console_actions": (
        "SELECT, INSERT"
        " (actor, action, user_id, target, reason, before, after, form_key, request_id)"
    ),
    "console_people": "SELECT, INSERT, UPDATE",
    "console_sessions": "SELECT, INSERT, UPDATE, DELETE",
    # A user's group never changes by itself; nobody is deleted.
    "users_directory": "SELECT, INSERT, UPDATE (email_lower, stripe_customer_id)",
    "payments_directory": "SELECT, INSERT",
    "user_groups": "SELECT, UPDATE (users_count, counted_at)",
    "group_turns": "SELECT, INSERT, UPDATE (began_at)",
    "alembic_version": "SELECT",
}

_ON_CITUS = {"user_groups": "SELECT, UPDATE"}
"""It asks for the privilege of the whole table, as it locks what all nodes have."""

SEQUENCES = {
    "console_actions_action_id_seq": "console_actions",
    "credit_notices_number_seq": "credit_notices",
}
"""Of columns that number rows, with their tables. Inserting needs no privilege; a backup reads how
far they are."""


def privileges_on(connection: Connection) -> Mapping[str, str]:
    """What a running service needs of this database, by table."""
    return PRIVILEGES | _ON_CITUS if is_citus(connection) else PRIVILEGES


def grant_runtime(connection: Connection, role: str) -> bool:
    """Give `role` what a running service needs, and nothing else where our tables are.

    Makes the role, able to log in once it has a password, where it does not exist; whether it did
    that. Doing it again, after a migration, brings the privileges up to date. From now on only the
    schema's owner may create there, or use what runs as its owner; `role` and everybody else
    (PUBLIC) may not.
    """
    name = sql.Identifier(role)
    exists = connection.exec_driver_sql(
        "SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)
    ).one_or_none()
    if exists is None:
        _run(connection, sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE"), name)
    schema, side = _schema(connection), side_here(connection)
    _grant_in(connection, schema, _tables_of(side), name)
    if side is Side.EVERYBODY:
        _let_move_what_waits(connection, name)
        groups = connection.exec_driver_sql("SELECT schema FROM user_groups ORDER BY 1")
        for group in groups.scalars().all():
            _grant_in(connection, group, _tables_of(Side.USERS), name)
    return exists is None


def grant_in_group(connection: Connection, schema: str, role: str) -> None:
    """Give a role that runs the service already the same in the schema of a new group."""
    _grant_in(connection, schema, _tables_of(Side.USERS), sql.Identifier(role))
    _let_move_what_waits(connection, sql.Identifier(role))


def _let_move_what_waits(connection: Connection, name: sql.Identifier) -> None:
    """What waits in `public` for its payment is moved to the group of whoever bought."""
    waiting = sql.Identifier(SHARED_SCHEMA, "stripe_reversals")
    _run(connection, sql.SQL("GRANT DELETE ON {} TO {}"), waiting, name)


def roles_of_service(connection: Connection) -> list[str]:
    """The roles that `grant_runtime` was called for."""
    found = connection.exec_driver_sql(
        "SELECT DISTINCT rolname::text FROM pg_catalog.pg_class,"
        " pg_catalog.aclexplode(relacl) AS granted"
        " JOIN pg_catalog.pg_roles ON pg_roles.oid = granted.grantee"
        " WHERE pg_class.oid = 'user_groups'::pg_catalog.regclass AND grantee <> relowner"
        " ORDER BY 1"
    )
    return list(found.scalars())


def _tables_of(side: Side | None) -> set[str]:
    """What there is of each side, or of both."""
    if side is Side.USERS:
        return {*USERS_TABLES, "alembic_version"}
    here = {*PRIVILEGES}
    return here if side is None else here - (USERS_TABLES - ON_BOTH_SIDES)


def _grant_in(
    connection: Connection, named: str, tables: AbstractSet[str], name: sql.Identifier
) -> None:
    schema = sql.Identifier(named)
    _run(connection, sql.SQL("REVOKE CREATE ON SCHEMA {} FROM PUBLIC, {}"), schema, name)
    _run(connection, sql.SQL("GRANT USAGE ON SCHEMA {} TO {}"), schema, name)
    _keep_from_others(connection, named)
    for table, privileges in privileges_on(connection).items():
        if table not in tables:
            continue
        on_table = sql.Identifier(named, table)
        _run(connection, sql.SQL("REVOKE ALL ON {} FROM {}"), on_table, name)
        granting = sql.SQL(f"GRANT {privileges} ON {{}} TO {{}}")  # pyright: ignore[reportArgumentType]  our own table above
        _run(connection, granting, on_table, name)
    for sequence in (each for each, table in SEQUENCES.items() if table in tables):
        numbers = sql.Identifier(named, sequence)
        _run(connection, sql.SQL("REVOKE ALL ON SEQUENCE {} FROM {}"), numbers, name)
        _run(connection, sql.SQL("GRANT SELECT ON SEQUENCE {} TO {}"), numbers, name)


def _keep_from_others(connection: Connection, schema: str) -> None:
    """Let nobody else have a trigger that runs as its owner at a table of their own.

    Our triggers go on: the privilege is asked for when a trigger is made.
    """
    names = connection.exec_driver_sql(
        "SELECT proname FROM pg_catalog.pg_proc WHERE prosecdef"
        " AND prorettype = 'pg_catalog.trigger'::pg_catalog.regtype"
        " AND (pronamespace, proowner) = (SELECT relnamespace, relowner FROM pg_catalog.pg_class"
        " WHERE relname = 'credit_ledgers' AND relnamespace = %s::pg_catalog.regnamespace)",
        (schema,),
    ).scalars()
    for name in names.all():
        function = sql.Identifier(schema, name)
        _run(connection, sql.SQL("REVOKE EXECUTE ON FUNCTION {}() FROM PUBLIC"), function)


def schema_open_to_public(connection: Connection) -> str | None:
    """The schema of our tables, if everybody may create functions there, else None.

    So it is in databases from before PostgreSQL 15, upgraded ones too, until `grant_runtime`.
    """
    schema = _schema(connection)
    is_open = connection.exec_driver_sql(
        "SELECT pg_catalog.has_schema_privilege('public', %s::text, 'CREATE')", (schema,)
    ).scalar_one()
    return schema if is_open else None


def _schema(connection: Connection) -> str:
    schema: str = connection.exec_driver_sql(
        "SELECT pg_catalog.current_schema()::text"
    ).scalar_one()
    return schema


def _run(connection: Connection, statement: sql.SQL, *names: sql.Identifier) -> None:
    connection.exec_driver_sql(statement.format(*names).as_string())
