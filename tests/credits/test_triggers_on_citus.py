"""The triggers' second form on Citus itself, where `CITUS_DSN` names a coordinator's database.

A superuser's: each run makes a distributed schema there, with all migrations in it, and drops it.
"""

import os
import secrets
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from alembic import command
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Engine, event, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from src.common.database_settings import LedgerTriggers
from src.common.models.credit_notice import CreditNotice, NoticeType
from src.common.postgres.engines import build_engine
from src.common.postgres.errors import is_ledger_unbalanced, sqlstate_of
from src.common.postgres.ledger_triggers_form import is_in_place
from src.common.postgres.migrations import alembic_config
from src.common.settings import get_settings
from tests.credits.forging import BY_SQLSTATE, Forgery, People, Write, populate
from tests.credits.test_triggers_at_commit import FORGERIES, HONEST
from tests.notices.outbox import EVERYTHING, add_endpoint

DSN = os.environ.get("CITUS_DSN")
COMMIT = LedgerTriggers.COMMIT
pytestmark = [
    pytest.mark.skipif(DSN is None, reason="CITUS_DSN names no database"),
    pytest.mark.xdist_group("citus"),
]
ANOTHER_ID = "'00000000-0000-4000-8000-00000000000f'"
REFUSED = {
    name: forged
    for name, forged in FORGERIES.items()
    if forged.refused_by(COMMIT) not in {None, "privilege"} and forged.whose != "before"
}
"""A superuser has all privileges, and nobody here is from before the ledger."""


@pytest.fixture(scope="module")
def citus() -> Generator[Engine]:
    """Our engine, whose connections see a schema that Citus has distributed."""
    assert DSN is not None
    schema = f"flashslides_{secrets.token_hex(4)}"
    given = conninfo_to_dict(DSN)
    variables: dict[str, Any] = {
        "DATABASE_HOST": given["host"],
        "DATABASE_PORT": given.get("port", "5432"),
        "DATABASE_NAME": given["dbname"],
        "DATABASE_USER": given["user"],
        "DATABASE_PASSWORD": given.get("password", "none"),
        "DATABASE_LEDGER_TRIGGERS": COMMIT,
    }
    with pytest.MonkeyPatch.context() as patch, psycopg.connect(DSN, autocommit=True) as admin:
        for name, value in variables.items():
            patch.setenv(name, str(value))
        get_settings.cache_clear()
        admin.execute("SET citus.enable_schema_based_sharding = on")
        admin.execute(f"CREATE SCHEMA {schema}".encode())
        engine = build_engine(get_settings())

        @event.listens_for(engine, "connect")
        def find_the_schema(connection: psycopg.Connection, _entry: object) -> None:
            connection.execute(f"SET search_path = {schema}".encode())
            connection.execute("SET citus.enable_unsafe_triggers = on")
            connection.commit()

        with engine.connect() as connection:
            command.upgrade(alembic_config(connection), "head")
        yield engine
        engine.dispose()
        admin.execute("SET client_min_messages = error")
        admin.execute(f"DROP SCHEMA {schema} CASCADE".encode())
    get_settings.cache_clear()


def _books(citus: Engine) -> People:
    with Session(citus) as session:
        people = populate(session, has_past=False)
        session.commit()
    return people


@pytest.fixture(scope="module")
def people(citus: Engine) -> People:
    """Those whose books are to be forged."""
    return _books(citus)


def attempt(citus: Engine, people: People, forgery: Forgery) -> str | None:
    """What refuses it, at the latest at a real COMMIT; None if nothing does."""
    names: dict[str, Any] = {**vars(people), "who": getattr(people, forgery.whose)}
    try:
        with citus.begin() as connection:
            for each in forgery.statements:
                statement = each.sql() if isinstance(each, Write) else each
                for name, value in names.items():
                    statement = statement.replace(f":{name}", f"'{value}'::uuid")
                connection.exec_driver_sql(statement.replace("%", "%%"))
    except DBAPIError as error:
        if is_ledger_unbalanced(error):
            return "trigger"
        return BY_SQLSTATE.get(sqlstate_of(error) or "", f"{error.orig}")
    return None


def test_the_second_form_is_in_place(citus: Engine) -> None:
    """The migrations of one server run there, and put it in place."""
    with citus.connect() as connection:
        assert is_in_place(connection, COMMIT)


@pytest.mark.parametrize("name", REFUSED)
def test_a_forgery_is_refused_by_what_refuses_it_on_one_server(
    citus: Engine, people: People, name: str
) -> None:
    """With the same error, which our connections make of what Citus says."""
    forgery = REFUSED[name]
    fixed = [  # Citus evaluates no volatile function in UPDATE
        each.replace("gen_random_uuid()", ANOTHER_ID) if isinstance(each, str) else each
        for each in forgery.statements
    ]
    assert attempt(citus, people, replace(forgery, statements=fixed)) == forgery.by


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_write_passes(citus: Engine, name: str) -> None:
    """And stays: each has books of its own."""
    assert attempt(citus, _books(citus), HONEST[name]) is None


def test_notices_are_written_with_what_they_tell(citus: Engine) -> None:
    """By triggers too, on the node that has the group's tables."""
    with Session(citus) as session:
        endpoint_id = add_endpoint(session, *EVERYTHING)
        session.commit()
    _books(citus)
    with Session(citus) as session:
        told = {
            each.type
            for each in session.scalars(
                select(CreditNotice).where(CreditNotice.endpoint_id == endpoint_id)
            )
        }
    assert told >= {NoticeType.GRANTED, NoticeType.SPENT, NoticeType.DEBT_OPENED}
