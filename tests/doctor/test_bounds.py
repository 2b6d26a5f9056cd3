"""No look waits: not for a lock, not for a server that has fallen silent."""

from collections.abc import Generator

import psycopg
import pytest
from sqlalchemy import text

from src.common.doctor import context as contexts
from src.common.doctor.catalogue import named
from src.common.doctor.context import Context
from src.common.doctor.examination import examine
from src.common.postgres import silent_servers
from src.common.postgres.errors import RetryableDatabaseError
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.doctor.system import asked
from tests.postgres.drivers import open_connection, read_only
from tests.postgres.test_silent_servers import Wire, wire_to


@pytest.fixture
def other(fresh_database: ConnectionParameters) -> Generator[psycopg.Connection]:
    """Another session on this test's database."""
    with open_connection(fresh_database) as connection:
        yield connection


@pytest.fixture
def unlimited_wire(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> Generator[Wire]:
    """A wire to the database, for a service that has no time-outs."""
    monkeypatch.setattr(silent_servers, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(contexts, "STATEMENT_TIMEOUT_MS", 200)
    with wire_to(fresh_database) as wire:
        monkeypatch.setenv("DATABASE_PORT", str(wire.port))
        monkeypatch.setenv("DATABASE_STATEMENT_TIMEOUT_MS", "0")
        monkeypatch.setenv("DATABASE_LOCK_TIMEOUT_MS", "0")
        get_settings.cache_clear()
        yield wire


def test_whether_the_database_answers_waits_for_no_lock(other: psycopg.Connection) -> None:
    """Not even for whoever has the whole table, and it locks nothing itself."""
    with other.transaction():
        other.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        assert asked("database").status == "ok"


def test_a_database_that_only_reads_fails(fresh_database: ConnectionParameters) -> None:
    """Though the look itself only reads."""
    with read_only(fresh_database):
        found = asked("database")
    assert found.status == "fail"
    assert f"{fresh_database.database} on {fresh_database.host} only reads." in found.seen


def test_a_server_that_falls_silent_is_given_up_whatever_the_service_waits(
    unlimited_wire: Wire,
) -> None:
    """Once: no later check waits for it again."""
    context = Context()
    names = ["database", "server-version", "worker", "deadlocks"]
    with pytest.raises(RetryableDatabaseError, match="connection lost"):
        _look_at_silence(context, unlimited_wire)
    found = {each.name: each for each in examine(named(names), context)}
    context.close()
    assert found["database"].status == "fail"
    assert {found[name].not_looked_at_because for name in names[1:]} == {
        "the database is out of reach"
    }
    assert unlimited_wire.connections == 1


def _look_at_silence(context: Context, wire: Wire) -> None:
    with context.looking() as session:
        wire.cut()
        session.execute(text("SELECT 1"))
