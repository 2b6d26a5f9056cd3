"""The same books twice: in a database without groups, and divided among three groups."""

from typing import LiteralString

import psycopg
from psycopg import sql

from src.common.postgres.sides import USERS_TABLES
from src.local_postgres import ConnectionParameters

_OF_PURCHASES: LiteralString = """
    transaction_id IN (SELECT transaction_id FROM public.transactions WHERE user_id = ANY (%s))"""
_WITHOUT_USER = {"refund_requests", "stripe_reversals"}
_DIRECTORY: LiteralString = """
    INSERT INTO public.users_directory (user_id, schema, email_lower, stripe_customer_id)
    SELECT user_id, %s, lower(email), stripe_customer_id FROM {}.users"""
_COLUMNS: LiteralString = """
    SELECT string_agg(quote_ident(column_name), ', ') FROM information_schema.columns
    WHERE table_schema = 'public' AND table_name = %s AND is_generated = 'NEVER'"""


def connect(parameters: ConnectionParameters) -> psycopg.Connection:
    """As the server's superuser, past all triggers."""
    connection = psycopg.connect(
        host=parameters.host,
        port=parameters.port,
        user=parameters.user,
        password=parameters.password,
        dbname=parameters.database,
    )
    connection.execute("SET session_replication_role = replica")
    return connection


def divide_books(
    whole: ConnectionParameters, divided: ConnectionParameters, groups: list[str]
) -> None:
    """Copy what each user has into one of the groups, by turns."""
    with connect(whole) as read, connect(divided) as write:
        found = read.execute("SELECT user_id FROM users ORDER BY created_at, user_id").fetchall()
        for place, group in enumerate(groups):
            users = [user_id for (user_id,) in found[place :: len(groups)]]
            here = sql.Identifier(group)
            write.execute(
                sql.SQL("ALTER TABLE {}.users DROP CONSTRAINT {}").format(
                    here, sql.Identifier("ck_users_credits_balance_not_negative")
                )
            )
            for table in sorted(USERS_TABLES - {"credit_ledgers"}):
                _copy(read, write, group, table, users)
            write.execute(sql.SQL(_DIRECTORY).format(here), [group])


def _copy(
    read: psycopg.Connection, write: psycopg.Connection, group: str, table: str, users: list[object]
) -> None:
    named = read.execute(_COLUMNS, [table]).fetchone()
    assert named is not None
    columns = sql.SQL(named[0])
    condition = sql.SQL(_OF_PURCHASES if table in _WITHOUT_USER else "user_id = ANY (%s)")
    out = sql.SQL("COPY (SELECT {} FROM public.{} WHERE {}) TO STDOUT").format(
        columns, sql.Identifier(table), condition
    )
    into = sql.SQL("COPY {}.{} ({}) FROM STDIN").format(
        sql.Identifier(group), sql.Identifier(table), columns
    )
    with (
        read.cursor().copy(out, [users]) as coming,
        write.cursor().copy(into) as going,
    ):
        for block in coming:
            going.write(block)
