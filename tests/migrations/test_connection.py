"""How migrations connect: to the server itself, with errors as everywhere else."""

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DataError

from src.common.exceptions import SettingsError
from src.common.postgres.errors import RetryableDatabaseError
from src.common.postgres.migrations import (
    current_revision,
    head_revision,
    release_migration_lock,
    upgrade_to_head,
)
from src.common.postgres.reach import build_migration_engine
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters, free_port

POOLERS = pytest.mark.parametrize("pooler", ["transaction", "prepared"])


def configure(patch: pytest.MonkeyPatch, **variables: str) -> None:
    """Set variables and forget the settings read before."""
    for name, value in variables.items():
        patch.setenv(name, value)
    get_settings.cache_clear()


@POOLERS
def test_migrations_refuse_to_run_through_a_pooler(
    alembic_engine: Connection, monkeypatch: pytest.MonkeyPatch, pooler: str
) -> None:
    """The lock would hold nobody back there; nothing is changed, the sentence says what to set."""
    configure(monkeypatch, DATABASE_POOLER=pooler)
    with pytest.raises(SettingsError, match="DATABASE_DIRECT_HOST"):
        upgrade_to_head()
    assert current_revision(alembic_engine) is None


@POOLERS
def test_migrations_take_the_way_past_the_pooler(
    alembic_engine: Connection,
    empty_database: ConnectionParameters,
    monkeypatch: pytest.MonkeyPatch,
    pooler: str,
) -> None:
    """With the server's own address set, the pooler is not even asked: here there is none."""
    configure(
        monkeypatch,
        DATABASE_POOLER=pooler,
        DATABASE_HOST="127.0.0.1",
        DATABASE_PORT=str(free_port()),
        DATABASE_DIRECT_HOST=empty_database.host,
        DATABASE_DIRECT_PORT=str(empty_database.port),
    )
    upgrade_to_head()
    assert current_revision(alembic_engine) == head_revision()


def test_migrations_try_host_after_host(
    alembic_engine: Connection,
    empty_database: ConnectionParameters,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the service does, here past a pooler: the first of the servers does not answer."""
    configure(
        monkeypatch,
        DATABASE_POOLER="transaction",
        DATABASE_HOST="127.0.0.1",
        DATABASE_PORT=str(free_port()),
        DATABASE_DIRECT_HOST=f"127.0.0.1,{empty_database.host}",
        DATABASE_DIRECT_PORT=f"{free_port()},{empty_database.port}",
    )
    upgrade_to_head()
    assert current_revision(alembic_engine) == head_revision()


def test_a_lock_that_was_lost_on_the_way_is_noticed(alembic_engine: Connection) -> None:
    """Whoever gives back a lock that its connection does not have hears of it."""
    with pytest.raises(SettingsError, match="DATABASE_DIRECT_HOST"):
        release_migration_lock(alembic_engine)


@pytest.mark.usefixtures("empty_database")
def test_a_server_out_of_reach_is_the_one_retryable_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on every other engine, so that a caller can tell it from a wrong password."""
    configure(monkeypatch, DATABASE_HOST="127.0.0.1", DATABASE_PORT=str(free_port()))
    with pytest.raises(RetryableDatabaseError):
        upgrade_to_head()


@pytest.mark.usefixtures("empty_database")
def test_an_error_does_not_quote_parameters() -> None:
    """What a data migration binds may be personal data."""
    engine = build_migration_engine(get_settings())
    with engine.connect() as connection, pytest.raises(DataError) as caught:
        connection.execute(text("SELECT 1 / :zero, :name"), {"zero": 0, "name": "Ada Lovelace"})
    assert "Ada" not in str(caught.value)


@pytest.mark.usefixtures("empty_database")
def test_without_a_database_only_a_developer_s_machine_migrates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Plain Alembic starts no embedded server and tries no address of its own elsewhere."""
    monkeypatch.delenv("DATABASE_HOST")
    configure(
        monkeypatch,
        ENV="staging",
        DATABASE_PASSWORD="long-and-random",
        AUTH_JWT_SECRET='{"keys": []}',
        STRIPE_SECRET_KEY="sk_live_x",
        STRIPE_WEBHOOK_SECRET="whsec_x",
    )
    with pytest.raises(SettingsError, match="DATABASE_HOST"):
        upgrade_to_head()
