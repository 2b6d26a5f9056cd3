"""The rows of users: compared user by user, and copied with all that is theirs."""

import uuid
from collections.abc import Collection
from typing import NamedTuple

from psycopg import sql
from psycopg.sql import Composable, Composed
from sqlalchemy import Table

from src.common.models.every_table import Base
from src.common.postgres.sides import USERS_TABLES
from src.common.sharding.copying.databases import Database, by_place
from src.common.sharding.copying.parity import Content

_OF_PURCHASES = ("refund_requests", "stripe_reversals")
"""Whose rows are a user's by the purchase that they are about."""
COPIED = (*_OF_PURCHASES, *sorted(USERS_TABLES - {*_OF_PURCHASES, "credit_ledgers"}))
"""In the order in which they can be deleted: a purchase after what is about it."""
_THEIRS = """SELECT user_id FROM public.users
  WHERE lower(email) IN (SELECT lower(unnest(%s::text[]))) OR stripe_customer_id = ANY (%s)"""
_NOTED_AS_THEIRS = """SELECT user_id FROM public.users_directory
  WHERE email_lower IN (SELECT lower(unnest(%s::text[]))) OR stripe_customer_id = ANY (%s)"""


class Whose(NamedTuple):
    """What must be one user's alone."""

    emails: list[str]
    customer_ids: list[str]


def read_contents(
    database: Database, places: dict[uuid.UUID, str]
) -> dict[uuid.UUID, dict[str, Content]]:
    """What these users have, all of them being where `places` says."""
    found: dict[uuid.UUID, dict[str, Content]] = {user_id: {} for user_id in places}
    for schema, user_ids in by_place(places).items():
        digests = sql.SQL(" UNION ALL ").join(_digests(schema, table) for table in COPIED)
        for table, user_id, rows, digest in database.raw.execute(digests, {"users": user_ids}):
            found[user_id][table] = Content(rows, digest)
    return found


def count_rows(database: Database, table: str) -> int:
    """How many rows this table has that are any user's, or should be."""
    condition = sql.SQL("transaction_id IS NOT NULL" if table == "stripe_reversals" else "true")
    counted = [
        database.run(
            "SELECT count(*) FROM {} WHERE {}", sql.Identifier(schema, table), condition
        ).fetchall()
        for schema in database.users_schemas
    ]
    return sum(row[0] for [row] in counted)


def delete_users(database: Database, places: dict[uuid.UUID, str]) -> None:
    """Delete all that these users have, and what the directory says of them."""
    for schema, user_ids in by_place(places).items():
        for table in COPIED:
            database.run(
                "DELETE FROM {} AS of_user WHERE {}",
                *(sql.Identifier(schema, table), _is_of(schema, table, sql.Literal(user_ids))),
            )
    if database.groups:
        users = sql.Literal(list(places))
        database.run("DELETE FROM public.payments_directory WHERE user_id = ANY ({})", users)
        database.run("DELETE FROM public.users_directory WHERE user_id = ANY ({})", users)


def copy_table(
    source: Database,
    from_schema: str,
    target: Database,
    to_schema: str,
    table: str,
    user_ids: Collection[uuid.UUID],
) -> None:
    """Copy these users' rows of one table."""
    columns = _columns(table)
    reading = sql.SQL("COPY (SELECT {} FROM {} AS of_user WHERE {}) TO STDOUT").format(
        *(
            columns,
            sql.Identifier(from_schema, table),
            _is_of(from_schema, table, sql.Literal(list(user_ids))),
        )
    )
    writing = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(to_schema, table), columns)
    stream(source, reading, target, writing)


def stream(source: Database, reading: Composed, target: Database, writing: Composed) -> None:
    """Write in one database what is read in the other, as it comes."""
    with (
        source.raw.cursor().copy(reading) as read,
        target.raw.cursor().copy(writing) as written,
    ):
        for block in read:
            written.write(block)


def read_whose(database: Database, places: dict[uuid.UUID, str]) -> Whose:
    """The e-mails and Stripe customers of these users."""
    emails: list[str] = []
    customer_ids: list[str] = []
    for schema, user_ids in by_place(places).items():
        for email, customer_id in database.run(
            "SELECT email, stripe_customer_id FROM {} WHERE user_id = ANY ({})",
            *(sql.Identifier(schema, "users"), sql.Literal(user_ids)),
        ):
            emails.append(email)
            customer_ids += [customer_id] if customer_id else []
    return Whose(emails, customer_ids)


def users_who_have(database: Database, whose: Whose) -> list[uuid.UUID]:
    """Whose one of these is in this database."""
    statement = _NOTED_AS_THEIRS if database.groups else _THEIRS
    return [row[0] for row in database.raw.execute(statement, whose)]


def note_in_directory(target: Database, schema: str, user_ids: Collection[uuid.UUID]) -> None:
    """Write what the directory says of users who came to this group.

    An object of Stripe's that is another user's already is left: the check of the directory, which
    comes before anything is opened, finds it.
    """
    users, name = sql.Literal(list(user_ids)), sql.Literal(schema)
    target.run(
        "INSERT INTO public.users_directory (user_id, schema, email_lower, stripe_customer_id)"
        " SELECT user_id, {}, lower(email), stripe_customer_id FROM {} WHERE user_id = ANY ({})",
        *(name, sql.Identifier(schema, "users"), users),
    )
    bought, ordered, back = (
        sql.Identifier(schema, table)
        for table in ("transactions", "checkout_orders", "stripe_reversals")
    )
    target.run(
        "INSERT INTO public.payments_directory (object_id, user_id)"
        " SELECT DISTINCT object_id, user_id FROM ("
        "SELECT unnest(ARRAY[stripe_session_id, payment_intent_id, invoice_id]), user_id FROM {}"
        " UNION ALL SELECT stripe_session_id, user_id FROM {}"
        " UNION ALL SELECT reversal_id, user_id FROM {} JOIN {} USING (transaction_id)"
        ") AS named (object_id, user_id)"
        " WHERE object_id IS NOT NULL AND user_id = ANY ({}) ON CONFLICT DO NOTHING",
        *(bought, ordered, back, bought, users),
    )


def forget_what_waited(source: Database, places: dict[uuid.UUID, str], target: Database) -> None:
    """Delete here, among what waits for its payment, what is a user's in the source by now."""
    for schema, user_ids in by_place(places).items():
        keys = source.run(
            "SELECT livemode, reversal_id FROM {} AS of_user WHERE {}",
            sql.Identifier(schema, "stripe_reversals"),
            _is_of(schema, "stripe_reversals", sql.Literal(user_ids)),
        ).fetchall()
        for livemode, reversal_id in keys:
            target.raw.execute(
                "DELETE FROM public.stripe_reversals WHERE transaction_id IS NULL"
                " AND livemode = %s AND reversal_id = %s",
                [livemode, reversal_id],
            )


def _digests(schema: str, table: str) -> Composed:
    """A row for each of the `users` who has any: table, user, how many, their digest."""
    columns = _columns(table)
    owner: Composable = sql.SQL("of_user.user_id")
    if table in _OF_PURCHASES:
        owner = sql.SQL(
            "(SELECT user_id FROM {} AS bought WHERE bought.transaction_id ="
            " of_user.transaction_id)"
        ).format(sql.Identifier(schema, "transactions"))
    return sql.SQL(
        "SELECT {}, owner, count(*), sha256(string_agg(digest, ''::bytea ORDER BY digest)) FROM ("
        "SELECT {} AS owner, sha256(convert_to(ROW({})::text, 'UTF8')) AS digest"
        " FROM {} AS of_user WHERE {}) AS digests GROUP BY owner"
    ).format(
        *(sql.Literal(table), owner, columns),
        *(sql.Identifier(schema, table), _is_of(schema, table, sql.Placeholder("users"))),
    )


def _is_of(schema: str, table: str, users: Composable) -> Composed:
    if table not in _OF_PURCHASES:
        return sql.SQL("of_user.user_id = ANY ({})").format(users)
    return sql.SQL(
        "of_user.transaction_id IN (SELECT transaction_id FROM {} WHERE user_id = ANY ({}))"
    ).format(sql.Identifier(schema, "transactions"), users)


def _columns(table: str) -> Composed:
    return columns_of(Base.metadata.tables[table])


def columns_of(table: Table) -> Composed:
    """The columns by name, in the models' order: a group's users have one more."""
    return sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns)
