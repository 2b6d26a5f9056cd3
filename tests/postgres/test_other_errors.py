"""What is no passing condition keeps its own class, and its text quotes nobody's data."""

import traceback
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError

from src.common.exceptions import DatabaseBusy
from src.common.postgres.errors import sqlstate_of, violated_constraint
from src.local_postgres import ConnectionParameters
from tests.postgres.drivers import Driver, refusing_server, settings_for

SECRET = "ada@example.com"
PEOPLE = """
CREATE TEMPORARY TABLE people (id int PRIMARY KEY, secret text UNIQUE, n int CHECK (n > 0))
"""
INSERT = "INSERT INTO people VALUES (:id, :secret, :n)"


async def test_a_violated_constraint_is_an_integrity_error_that_names_it(
    driver: Driver, worker_database: ConnectionParameters
) -> None:
    """The caller decides by the constraint's name what it means."""
    violations: dict[str, dict[str, object]] = {
        "people_pkey": {"id": 1, "secret": "other", "n": 1},
        "people_secret_key": {"id": 2, "secret": SECRET, "n": 1},
        "people_n_check": {"id": 2, "secret": SECRET + "2", "n": -1},
    }
    for constraint, values in violations.items():
        error = await _failure(driver, worker_database, values)
        assert isinstance(error, IntegrityError)
        assert violated_constraint(error) == constraint


@pytest.mark.parametrize(
    "values",
    [
        {"id": 2, "secret": SECRET, "n": 1},
        {"id": 2, "secret": SECRET + "2", "n": -1},
        {"id": None, "secret": SECRET + "2", "n": 1},
    ],
    ids=["unique", "check", "not null"],
)
async def test_a_constraint_s_error_quotes_no_row(
    values: dict[str, object], driver: Driver, worker_database: ConnectionParameters
) -> None:
    """PostgreSQL's DETAIL holds the row; no text, repr or traceback of the error does."""
    assert SECRET not in _shown(await _failure(driver, worker_database, values))


@pytest.mark.parametrize("query", ["SELECT CAST(:v AS text)::int", "SELECT CAST(:v AS text)::json"])
async def test_a_value_postgresql_cannot_read_is_not_quoted(
    query: str, driver: Driver, worker_database: ConnectionParameters
) -> None:
    """A data exception says which type it was, not what was in it."""
    error = await _refused(driver, worker_database, lambda c: _execute(c, query, v=SECRET))
    assert sqlstate_of(error) == "22P02"
    assert "invalid input syntax for type" in str(error)
    assert SECRET not in _shown(error)


async def test_a_value_the_driver_cannot_send_is_not_quoted(
    driver: Driver, worker_database: ConnectionParameters
) -> None:
    """Where asyncpg refuses a text for a number it would quote it; psycopg asks the server."""
    query = "SELECT 1 + CAST(:v AS integer)"
    error = await _refused(driver, worker_database, lambda c: _execute(c, query, v=SECRET))
    assert "invalid input" in str(error)
    assert SECRET not in _shown(error)


@pytest.mark.parametrize(
    ("statement", "sqlstate"),
    [
        ("SELECT nonsense", "42703"),
        ("SELECT FROM nowhere", "42P01"),
        ("SELEKT 1", "42601"),
        ("ALTER SYSTEM SET jit = off", "25001"),
        ("SELECT count(*) FROM pg_class FOR UPDATE", "0A000"),
    ],
)
async def test_a_mistake_in_the_program_is_not_a_busy_database(
    statement: str, sqlstate: str, driver: Driver, worker_database: ConnectionParameters
) -> None:
    """Nobody is told to try a mistake again, also where the code is that of a stale plan."""
    error = await _refused(driver, worker_database, lambda c: _execute(c, statement))
    assert sqlstate_of(error) == sqlstate
    assert isinstance(error, ProgrammingError) is sqlstate.startswith("42")


@pytest.mark.parametrize(
    "wrong",
    [
        {"database_password": "wrong"},
        {"database_user": "nobody"},
        {"database_name": "nowhere"},
    ],
)
async def test_a_server_that_knows_us_not_is_not_a_busy_database(
    wrong: dict[str, object], driver: Driver, worker_database: ConnectionParameters
) -> None:
    """A wrong password, role or database stays an error that says so; waiting does not help."""
    error = await _refused(driver, worker_database, lambda _: None, **wrong)
    assert "password authentication failed" in str(error) or "does not exist" in str(error)
    assert worker_database.password not in _shown(error)


@pytest.mark.parametrize(
    "message", ["unsupported startup parameter: options", "no such database: flashslides"]
)
async def test_a_pooler_that_is_set_up_wrongly_is_not_a_busy_database(
    message: str, driver: Driver, worker_database: ConnectionParameters
) -> None:
    """PgBouncer's one code says nothing, its sentence tells who forgot DATABASE_POOLER."""
    with refusing_server("08P01", message) as port:
        error = await _refused(driver, worker_database, lambda _: None, database_port=port)
    assert message in str(error)


async def _failure(
    driver: Driver, database: ConnectionParameters, values: dict[str, object]
) -> DBAPIError:
    """What an INSERT beside the first person's row fails with."""

    def work(connection: Connection) -> None:
        _execute(connection, PEOPLE)
        _execute(connection, INSERT, id=1, secret=SECRET, n=1)
        _execute(connection, INSERT, **values)

    return await _refused(driver, database, work)


async def _refused(
    driver: Driver,
    database: ConnectionParameters,
    work: Callable[[Connection], None],
    **settings: object,
) -> DBAPIError:
    with pytest.raises(DBAPIError) as caught:
        await driver.run(settings_for(database, **settings), work)
    assert not isinstance(caught.value, DatabaseBusy)
    return caught.value


def _execute(connection: Connection, statement: str, **values: object) -> None:
    connection.execute(text(statement), values)


def _shown(error: DBAPIError) -> str:
    """All that a log could hold of the error: texts, reprs and the chain of what caused it."""
    chain = traceback.TracebackException.from_exception(error)
    return "".join([str(error), repr(error), repr(error.orig), *_texts(chain)])


def _texts(chain: traceback.TracebackException | None) -> list[str]:
    """The error's own lines and those of its causes, without the lines of our source."""
    if chain is None:
        return []
    own = list(chain.format_exception_only())
    return own + _texts(chain.__cause__) + _texts(chain.__context__)
