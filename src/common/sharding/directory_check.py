"""Compares the directory with all groups: whether each user and each payment is where it says."""

from collections.abc import Generator
from typing import NamedTuple

from psycopg import sql
from sqlalchemy import Connection

from src.common.sharding.groups import ready_groups

_USERS = """
SELECT coalesce(here.user_id, noted.user_id)::text, CASE
    WHEN here.user_id IS NULL THEN 'is noted, and not there'
    WHEN noted.user_id IS NULL THEN 'is there, and not noted'
    ELSE 'has another e-mail or customer there' END
FROM {users} AS here
FULL JOIN (SELECT * FROM public.users_directory WHERE schema = {schema}) AS noted USING (user_id)
WHERE here.user_id IS NULL OR noted.user_id IS NULL OR lower(here.email) <> noted.email_lower
  OR here.stripe_customer_id IS DISTINCT FROM noted.stripe_customer_id"""
_PAYMENTS = """
SELECT user_id::text, 'has a payment that is not noted as theirs' FROM (
  SELECT unnest(ARRAY[stripe_session_id, payment_intent_id, invoice_id]), user_id FROM {bought}
  UNION ALL SELECT stripe_session_id, user_id FROM {ordered}
  UNION ALL SELECT reversal_id, user_id FROM {back} JOIN {bought} USING (transaction_id)
) AS named (object_id, user_id)
WHERE object_id IS NOT NULL AND NOT EXISTS (SELECT FROM public.payments_directory AS noted
  WHERE (noted.object_id, noted.user_id) = (named.object_id, named.user_id))"""
_TABLES = {
    "users": "users",
    "bought": "transactions",
    "ordered": "checkout_orders",
    "back": "stripe_reversals",
}


class Difference(NamedTuple):
    """A user of whom the directory and a group say different things."""

    schema: str
    user_id: str
    what: str


def directory_differences(connection: Connection) -> Generator[Difference]:
    """All that there are, group after group; in one database transaction of this connection's."""
    for schema in ready_groups(connection):
        names = {name: sql.Identifier(schema, table) for name, table in _TABLES.items()}
        for query in (_USERS, _PAYMENTS):
            statement = sql.SQL(query).format(**names, schema=sql.Literal(schema)).as_string()
            for user_id, what in connection.exec_driver_sql(statement.replace("%", "%%")):
                yield Difference(schema, user_id, what)
