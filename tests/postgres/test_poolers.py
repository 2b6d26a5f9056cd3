"""A pooler is known by what it answers; nothing that needs a connection of its own runs behind one.

On Debian's PgBouncer, which `.ci/run` installs; `PGBOUNCER` names another.
"""

from collections.abc import Callable, Generator
from contextlib import ExitStack

import pytest
from sqlalchemy import NullPool, create_engine

from benchmarks.failover.pgbouncer import PgBouncer
from benchmarks.failover.programs import NotInstalled, account
from src.cli.exit_codes import MISCONFIGURED
from src.common.database_settings import DatabasePooler
from src.common.exceptions import SettingsError
from src.common.postgres.engines import database_url
from src.common.postgres.migrations import current_revision, head_revision, upgrade_to_head
from src.common.postgres.poolers import Pooler, Sharing, find_pooler
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.cli.conftest import RunCommand
from tests.doctor.system import asked
from tests.fixtures.folders import folder_for_data
from tests.postgres.drivers import settings_for

Start = Callable[..., PgBouncer]
CONSOLE = {"stats_users": "postgres"}


@pytest.fixture
def start_pgbouncer() -> Generator[Start]:
    """Starts a PgBouncer before a database, with settings of its own; it ends with the test."""
    with ExitStack() as stack:

        def start(database: ConnectionParameters, **settings: str) -> PgBouncer:
            folder = stack.enter_context(folder_for_data())
            account().own(folder)
            try:
                pgbouncer = PgBouncer(folder, account(), database, settings)
            except NotInstalled as missing:
                pytest.skip(str(missing))
            stack.callback(pgbouncer.kill)
            return pgbouncer

        yield start


def lead_to(patch: pytest.MonkeyPatch, connection: ConnectionParameters, **variables: str) -> None:
    """Have the settings name this address."""
    named = {"DATABASE_HOST": connection.host, "DATABASE_PORT": str(connection.port)}
    for name, value in (named | variables).items():
        patch.setenv(name, value)
    get_settings.cache_clear()


def revision_of(database: ConnectionParameters) -> str | None:
    """How far the database is migrated."""
    engine = create_engine(database_url(settings_for(database)), poolclass=NullPool)
    with engine.connect() as connection:
        return current_revision(connection)


def test_postgresql_itself_is_no_pooler(worker_database: ConnectionParameters) -> None:
    """The number it tells is that of the process that serves us."""
    assert find_pooler(settings_for(worker_database)) is None


@pytest.mark.parametrize("mode", ["session", "transaction", "statement"])
def test_a_pooler_s_mode_shows_in_how_it_shares(
    mode: str, start_pgbouncer: Start, worker_database: ConnectionParameters
) -> None:
    """Without its console, whose users its configuration names."""
    pgbouncer = start_pgbouncer(worker_database, pool_mode=mode)
    found = find_pooler(settings_for(pgbouncer.connection))
    assert found is not None
    assert found.sharing == mode
    assert found.name.startswith("PgBouncer ")
    assert found.prepared_statements_max is None


def test_a_pooler_with_one_connection_keeps_nobody_waiting(
    start_pgbouncer: Start, worker_database: ConnectionParameters
) -> None:
    """The second client is given what the first has let go of."""
    pgbouncer = start_pgbouncer(worker_database, default_pool_size="1")
    found = find_pooler(settings_for(pgbouncer.connection))
    assert found is not None
    assert found.sharing is Sharing.TRANSACTION


def test_its_console_tells_its_version_to_whom_it_answers(
    start_pgbouncer: Start, worker_database: ConnectionParameters
) -> None:
    """And how many prepared statements it keeps: before 1.21 none."""
    pgbouncer = start_pgbouncer(worker_database, admin_users="postgres")
    found = find_pooler(settings_for(pgbouncer.connection))
    assert found is not None
    assert found.name == pgbouncer.version()
    assert found.prepared_statements_max is not None


@pytest.mark.parametrize("ignored", ["", "options"])
def test_migrations_do_not_run_through_a_pooler_nobody_spoke_of(
    ignored: str,
    start_pgbouncer: Start,
    empty_database: ConnectionParameters,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The settings say that there is none. Nothing is changed; the sentence says what to set."""
    pgbouncer = start_pgbouncer(empty_database, ignore_startup_parameters=ignored)
    lead_to(monkeypatch, pgbouncer.connection)
    with pytest.raises(SettingsError, match=r"transaction mode.*DATABASE_DIRECT_HOST"):
        upgrade_to_head()
    lead_to(
        monkeypatch,
        pgbouncer.connection,
        DATABASE_DIRECT_HOST=pgbouncer.connection.host,
        DATABASE_DIRECT_PORT=str(pgbouncer.connection.port),
    )
    with pytest.raises(SettingsError, match="transaction mode"):
        upgrade_to_head()
    assert revision_of(empty_database) is None


def test_the_command_says_what_to_set(
    start_pgbouncer: Start,
    empty_database: ConnectionParameters,
    run_command: RunCommand,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And ends as it does for any wrong configuration."""
    lead_to(
        monkeypatch,
        start_pgbouncer(empty_database, ignore_startup_parameters="options").connection,
    )
    result = run_command("db", "upgrade")
    assert result.exit_code == MISCONFIGURED
    assert "set DATABASE_DIRECT_HOST" in result.err


def test_migrations_run_through_one_that_shares_nothing(
    start_pgbouncer: Start,
    empty_database: ConnectionParameters,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In session mode a lock stays with its connection."""
    lead_to(monkeypatch, start_pgbouncer(empty_database, pool_mode="session").connection)
    upgrade_to_head()
    assert revision_of(empty_database) == head_revision()


@pytest.mark.parametrize(
    ("mode", "setting", "status", "says"),
    [
        ("transaction", "none", "fail", "in transaction mode; DATABASE_POOLER=none"),
        ("transaction", "prepared", "fail", "DATABASE_POOLER=prepared"),
        ("statement", "transaction", "fail", "in statement mode"),
        ("transaction", "transaction", "ok", "as DATABASE_POOLER=transaction has it"),
        ("session", "none", "ok", "in session mode"),
    ],
)
def test_the_doctor_says_whether_the_setting_fits(
    mode: str,
    setting: str,
    status: str,
    says: str,
    start_pgbouncer: Start,
    fresh_database: ConnectionParameters,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the pooler refuses the service's own connections."""
    pgbouncer = start_pgbouncer(
        fresh_database, pool_mode=mode, ignore_startup_parameters="options", **CONSOLE
    )
    if setting == "prepared" and not pgbouncer.version().startswith("PgBouncer 1.18"):
        pytest.skip("a newer PgBouncer keeps prepared statements")
    lead_to(
        monkeypatch,
        pgbouncer.connection,
        DATABASE_POOLER=setting,
        DATABASE_DIRECT_HOST=fresh_database.host,
        DATABASE_DIRECT_PORT=str(fresh_database.port),
    )
    found = asked("database-pooler")
    assert (found.status, says in found.seen) == (status, True), found.seen


def test_the_doctor_knows_a_pooler_that_lets_nobody_in(
    start_pgbouncer: Start, fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DATABASE_POOLER is still `none`: what the service says at its start is refused."""
    lead_to(monkeypatch, start_pgbouncer(fresh_database).connection)
    refused = asked("database")
    assert "unsupported startup parameter" in refused.seen
    assert refused.next == "set DATABASE_POOLER"
    found = asked("database-pooler")
    assert found.status == "fail"
    assert found.seen.startswith("PgBouncer")


@pytest.mark.parametrize(
    ("pooler", "keeps"),
    [
        (Pooler("PgBouncer 1.18.0", Sharing.TRANSACTION, 0), False),
        (Pooler("PgBouncer before 1.20", Sharing.TRANSACTION), False),
        (Pooler("PgBouncer 1.20 or later", Sharing.TRANSACTION), None),
        (Pooler("PgBouncer 1.25.2", Sharing.TRANSACTION, 200), True),
        (Pooler("PgBouncer 1.25.2", Sharing.TRANSACTION, 0), False),
        (Pooler("PgBouncer 1.18.0", Sharing.SESSION), True),
        (Pooler("a pooler", Sharing.TRANSACTION), None),
    ],
)
def test_who_keeps_prepared_statements(pooler: Pooler, keeps: bool | None) -> None:  # noqa: FBT001  of a table
    """From what it told; where it told nothing, nobody knows."""
    assert pooler.keeps_prepared_statements is keeps


def test_the_doctor_says_that_no_pooler_is_there(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting for one costs throughput without it."""
    lead_to(monkeypatch, fresh_database, DATABASE_POOLER=DatabasePooler.TRANSACTION)
    assert asked("database-pooler").status == "warn"
    lead_to(monkeypatch, fresh_database, DATABASE_POOLER=DatabasePooler.NONE)
    assert asked("database-pooler").status == "skipped"
