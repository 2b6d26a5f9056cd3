"""What others create beside our tables does not change what the triggers do (decision 0020)."""

import secrets
from collections.abc import Generator

import pytest
from sqlalchemy.exc import ProgrammingError

from src.common.database import get_engine
from src.common.postgres.runtime_role import grant_runtime, schema_open_to_public
from src.local_postgres import ConnectionParameters
from tests.credits import test_forgeries_holds, test_forgeries_journal
from tests.credits.forging import Forger, forging
from tests.fixtures.databases import Server
from tests.postgres.drivers import open_connection

FORMATTED = (
    "text, uuid, integer, integer",
    "text, uuid, integer, integer, integer",
    "text, integer, uuid",
    "text, integer, integer, uuid",
    "text, integer, uuid, integer",
    "text, integer, uuid, varchar",
    "text, integer, uuid, integer, integer",
    "text, integer, uuid, integer, integer, integer",
)
"""Of what triggers put into their sentences."""
PLANTED = (
    # Better matches than PostgreSQL's own, which take any type: a sentence of another type finds
    # another function to raise it, one that does not.
    "CREATE FUNCTION public.credit_ledger_unbalanced(varchar) RETURNS void LANGUAGE sql AS ''",
    *(
        f"CREATE FUNCTION public.format({types}) RETURNS varchar LANGUAGE sql AS $$ SELECT '' $$"
        for types in FORMATTED
    ),
    # PostgreSQL compares these as text.
    "CREATE FUNCTION public.always(varchar, varchar) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
    "CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = always)",
)


@pytest.fixture
def among_strangers(server: Server) -> Generator[Forger]:
    """Books in a database where everybody may create beside our tables, and somebody did."""
    stranger = f"stranger_{secrets.token_hex(4)}"
    with forging(server) as forger:
        with open_connection(forger.database) as connection:
            connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
            connection.execute(f"CREATE ROLE {stranger}".encode())
            connection.execute(f"SET SESSION AUTHORIZATION {stranger}".encode())
            for statement in PLANTED:
                connection.execute(statement.encode())
        yield forger
    server.execute("DROP ROLE {}", stranger)


def test_no_function_or_operator_of_others_silences_a_trigger(among_strangers: Forger) -> None:
    """Every forgery that a trigger refuses is refused all the same."""
    forgeries = {**test_forgeries_journal.FORGERIES, **test_forgeries_holds.FORGERIES}
    by_trigger = {name: each for name, each in forgeries.items() if each.by == "trigger"}
    passed = [name for name, each in by_trigger.items() if among_strangers.attempt(each) is None]
    assert passed == []


def test_granting_the_role_closes_the_schema(fresh_database: ConnectionParameters) -> None:
    """Who may create beside our tables is seen, and nobody but the owner may afterwards."""
    role = f"runtime_{secrets.token_hex(4)}"
    with get_engine().connect() as connection:
        assert schema_open_to_public(connection) is None
        connection.exec_driver_sql("GRANT CREATE ON SCHEMA public TO PUBLIC")
        assert schema_open_to_public(connection) == "public"
        grant_runtime(connection, role)
        assert schema_open_to_public(connection) is None
        connection.exec_driver_sql(f"SET LOCAL SESSION AUTHORIZATION {role}")
        with pytest.raises(ProgrammingError, match="permission denied for schema public"):
            connection.exec_driver_sql("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        connection.rollback()
    assert fresh_database
