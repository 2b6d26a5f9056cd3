"""A database that is closed: nobody writes there, since its users are, or come, elsewhere.

A trigger at each table refuses it, before any row is looked at, whatever a connection was opened
for. It answers as a server that is read-only, so callers are told to try again, and come to the
right database once the service is started with its settings. Who copies writes past it.
"""

from psycopg import sql
from sqlalchemy import Connection, text

from src.common.postgres.errors import CLOSED, READ_ONLY
from src.common.sharding.copying.databases import Database

_FUNCTION = "public.refuse_writes_while_closed()"
_MAKE_FUNCTION = f"""
CREATE OR REPLACE FUNCTION {_FUNCTION} RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '{READ_ONLY}',
    MESSAGE = '{CLOSED}: its users are copied between this database and another one';
END $$"""
_MAKE_TRIGGER = f"""CREATE OR REPLACE TRIGGER closed BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE
ON {{}} FOR EACH STATEMENT EXECUTE FUNCTION {_FUNCTION}"""


def is_closed(connection: Connection) -> bool:
    """Whether writes are refused there."""
    function = text(f"SELECT to_regprocedure('{_FUNCTION}') IS NOT NULL")
    closed: bool = connection.execute(function).scalar_one()
    return closed


def close(database: Database) -> None:
    """Refuse writes from the COMMIT of this database transaction on."""
    database.raw.execute(_MAKE_FUNCTION)
    for table in database.tables():
        database.raw.execute(sql.SQL(_MAKE_TRIGGER).format(table))


def reopen(database: Database) -> None:
    """Let everybody write again, from the COMMIT of this database transaction on."""
    database.raw.execute(f"DROP FUNCTION IF EXISTS {_FUNCTION} CASCADE".encode())
