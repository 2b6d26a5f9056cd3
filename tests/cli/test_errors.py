"""How errors leave the command: one sentence on stderr, an exit code that says what kind."""

from pathlib import Path

import pytest

from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters, free_port
from tests.cli.conftest import RunCommand


@pytest.fixture(autouse=True)
def settings_forgotten() -> None:
    """Tests here change the environment."""
    get_settings.cache_clear()


def test_the_version_is_printed(run_command: RunCommand) -> None:
    """`--version` alone, without any configuration."""
    result = run_command("--version")
    assert (result.exit_code, result.out.count(".")) == (0, 2)


def test_without_a_command_there_is_help(run_command: RunCommand) -> None:
    """Every group is named."""
    shown = run_command("--help")
    assert shown.exit_code == 0
    for group in ("serve", "db", "user", "api-key", "stripe"):
        assert group in shown.out


def test_a_wrong_setting_is_named(run_command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 78, the variable's name, not its value."""
    monkeypatch.setenv("DATABASE_PORT", "s3cret")
    result = run_command("user", "show", "ada@example.com")
    assert (result.exit_code, result.out) == (78, "")
    assert "DATABASE_PORT" in result.err
    assert "s3cret" not in result.err


@pytest.mark.parametrize(
    "arguments", [("user", "show", "a@b"), ("api-key", "list"), ("serve",), ("db", "current")]
)
def test_a_database_out_of_reach_is_worth_another_try(
    run_command: RunCommand, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """Exit code 75 and one sentence, no traceback."""
    monkeypatch.setenv("DATABASE_HOST", "127.0.0.1")
    monkeypatch.setenv("DATABASE_PORT", str(free_port()))
    options = ("--port", str(free_port())) if arguments == ("serve",) else ()
    result = run_command(*arguments, *options)
    assert (result.exit_code, result.out) == (75, "")
    assert result.err.count("flashslides: ") == 1
    assert "Traceback" not in result.err


def test_a_database_that_does_not_exist_is_not_worth_another_try(
    run_command: RunCommand,
    monkeypatch: pytest.MonkeyPatch,
    worker_database: ConnectionParameters,
) -> None:
    """Migrations end with exit code 1 and one sentence: it is not there the next time either."""
    monkeypatch.setenv("DATABASE_NAME", f"{worker_database.database}_missing")
    result = run_command("db", "upgrade")
    assert (result.exit_code, result.out) == (1, "")
    assert f"{worker_database.database}_missing" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    "arguments",
    [("user", "show", "a@b"), ("serve",), ("db", "upgrade"), ("db", "start"), ("db", "psql")],
)
def test_the_embedded_server_is_for_local_only(
    run_command: RunCommand,
    monkeypatch: pytest.MonkeyPatch,
    data_folder: Path,
    arguments: tuple[str, ...],
) -> None:
    """Where ENV is not local a database must be configured: exit code 78, nothing is made."""
    for name, value in {
        "ENV": "staging",
        "DATABASE_PASSWORD": "long-and-random",
        "AUTH_JWT_SECRET": '{"keys": []}',
        "STRIPE_SECRET_KEY": "sk_live_x",
        "STRIPE_WEBHOOK_SECRET": "whsec_x",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DATABASE_HOST", raising=False)
    options = ("--port", str(free_port())) if arguments == ("serve",) else ()
    result = run_command(*arguments, *options)
    assert (result.exit_code, result.out) == (78, "")
    assert "DATABASE_HOST" in result.err
    assert not data_folder.exists()


@pytest.mark.usefixtures("empty_database")
@pytest.mark.parametrize(
    "arguments", [("user", "show", "a@b"), ("stripe", "events", "list"), ("serve",)]
)
def test_a_database_without_our_tables_says_how_to_make_them(
    run_command: RunCommand, arguments: tuple[str, ...]
) -> None:
    """Exit code 78 and the command that helps, not a traceback."""
    options = ("--port", str(free_port())) if arguments == ("serve",) else ()
    result = run_command(*arguments, *options)
    assert (result.exit_code, result.out) == (78, "")
    assert "flashslides db upgrade" in result.err
    assert "Traceback" not in result.err


@pytest.mark.usefixtures("empty_database")
def test_migrations_run_from_the_command(run_command: RunCommand) -> None:
    """Up, compare, down with data refused and allowed: as the plain `alembic` commands do."""
    assert run_command("db", "upgrade").exit_code == 0
    assert "(head)" in run_command("db", "current").out
    assert "->" in run_command("db", "history").out
    assert run_command("db", "check").exit_code == 0
    assert run_command("user", "create", "ada@example.com").exit_code == 0
    refused = run_command("db", "downgrade", "base")
    assert refused.exit_code == 1
    assert "would lose rows of users" in refused.err
    assert run_command("user", "show", "ada@example.com").exit_code == 0
    assert run_command("db", "downgrade", "base", "--allow-data-loss").exit_code == 0
    assert run_command("db", "current").out == ""
    unknown = run_command("db", "upgrade", "nonsense")
    assert (unknown.exit_code, unknown.out) == (1, "")


def test_a_busy_port_is_named(
    run_command: RunCommand, worker_database: ConnectionParameters
) -> None:
    """Before anything is started: exit code 78 and the port."""
    result = run_command("serve", "--port", str(worker_database.port))
    assert (result.exit_code, result.out) == (78, "")
    assert str(worker_database.port) in result.err
