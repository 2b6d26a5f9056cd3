"""How errors leave the command: one sentence on stderr, an exit code that says what kind."""

from pathlib import Path

import pytest

from src.cli import exit_codes
from src.common.exceptions import ErrorKind
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters, free_port
from tests.cli.conftest import RunCommand
from tests.cli.every_command import COMMAND_LINES


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


@pytest.mark.parametrize(
    "arguments",
    [("user", "show", "a@b"), ("purchases", "list"), ("verify",), ("worker", "--once")],
)
def test_nothing_is_made_where_there_is_no_database(
    run_command: RunCommand,
    monkeypatch: pytest.MonkeyPatch,
    data_folder: Path,
    arguments: tuple[str, ...],
) -> None:
    """Whoever mistypes the data folder is told so, and finds no new one."""
    monkeypatch.setenv("ENV", "local")
    monkeypatch.delenv("DATABASE_HOST", raising=False)
    result = run_command(*arguments)
    assert (result.exit_code, result.out) == (78, "")
    assert f"There is no database in {data_folder}" in result.err
    assert not data_folder.exists()


@pytest.mark.parametrize("arguments", [("serve",), ("db", "start"), ("db", "upgrade")])
def test_an_impossible_port_of_the_embedded_server_is_a_wrong_setting(
    run_command: RunCommand, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """Exit code 78, as with every other setting."""
    monkeypatch.setenv("ENV", "local")
    monkeypatch.delenv("DATABASE_HOST", raising=False)
    monkeypatch.setenv("FLASHSLIDES_PG_PORT", "abc")
    options = ("--port", str(free_port())) if arguments == ("serve",) else ()
    result = run_command(*arguments, *options)
    assert (result.exit_code, result.out) == (78, "")
    assert "FLASHSLIDES_PG_PORT" in result.err


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
    for direction, revision in (
        ("upgrade", "nonsense"),
        ("downgrade", "nonsense"),
        ("downgrade", "-1"),
    ):
        unknown = run_command("db", direction, revision)
        assert (unknown.exit_code, unknown.out) == (2, ""), (direction, revision)


def test_every_kind_of_error_has_an_exit_code() -> None:
    """And each code is explained."""
    assert exit_codes.BY_KIND.keys() == set(ErrorKind)
    assert set(exit_codes.BY_KIND.values()) < exit_codes.MEANINGS.keys()


def test_a_user_who_is_deactivated_is_refused(flashslides: RunCommand) -> None:
    """USER_INACTIVE is 4, as is whatever else is refused as things stand."""
    flashslides("user", "create", "ada@example.com")
    flashslides("credits", "grant", "ada@example.com", "5")
    flashslides("user", "deactivate", "ada@example.com")
    refused = flashslides("credits", "spend", "ada@example.com", "1")
    assert refused.exit_code == 4
    assert "USER_INACTIVE" in refused.err.splitlines()[-1]


@pytest.mark.parametrize(
    "command",
    [
        "api-key create --scopes credits:read --service {}",
        "api-key revoke {}",
        "credits adjust ada@example.com 5 --reason {}",
        "credits explain {}",
        "credits grant ada@example.com 5 --key {}",
        "credits grant ada@example.com 5 --reference {}",
        "credits history {}",
        "credits holds list {}",
        "credits holds list --all --cursor {}",
        "credits holds release ada@example.com 1 --reason {}",
        "credits refund 00000000-0000-4000-8000-000000000001 --key {}",
        "purchases list --stripe-id {}",
        "purchases list --user {}",
        "purchases list --cursor {}",
        "purchases show {}",
        "stripe events ignore {}",
        "stripe events list --type {}",
        "stripe events replay {}",
        "stripe events show {}",
        "stripe unmatched resolve {} --note test",
        "stripe unmatched resolve cs_1 --note {}",
        "user create {}",
        "user create grace@example.com --first-name {}",
        "user find {}",
        "user show {}",
    ],
)
def test_what_no_column_can_hold_is_one_line(flashslides: RunCommand, command: str) -> None:
    """As a terminal of another encoding sends it: not found or refused, never a traceback."""
    assert flashslides("user", "create", "ada@example.com").exit_code == 0
    result = flashslides(*(word.format("a\udcff") for word in command.split()))
    assert result.exit_code in {2, 3, 78}, result.err
    assert "Traceback" not in result.err
    assert result.err.isascii() or "\udcff" not in result.err


@pytest.mark.parametrize("name", sorted(COMMAND_LINES.keys() - {"bench"}))
def test_h_is_help(run_command: RunCommand, name: str) -> None:
    """Of every command; `bench` has its own, which is that of the benchmarks."""
    short, long = (run_command(*name.split(), option) for option in ("-h", "--help"))
    assert (short.exit_code, short.out) == (0, long.out)
    assert f"flashslides {name}" in short.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("credits", "grant", "a@b", "ten"), "'amount': 'ten' is no whole number."),
        (("credits", "grant", "a@b", "9" * 5000), "has too many digits."),
        (("credits", "refund", "one", "--reason", "x"), "'one' is no UUID."),
        (("purchases", "list", "--limit", "0"), "'--limit': must be 1 or more."),
        (("purchases", "list", "--limit", "201"), "'--limit': must be 200 or less."),
        (("purchases", "list", "--state", "lost"), "'--state': 'lost' is not one of"),
    ],
)
def test_a_wrong_value_is_called_what_it_is(
    run_command: RunCommand,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    """Exit code 2; no word of how values are parsed."""
    monkeypatch.setenv("COLUMNS", "10000")
    result = run_command(*arguments)
    assert (result.exit_code, result.out) == (2, "")
    assert said in result.err
    for word in ("Input", "parse", "Value error"):
        assert word not in result.err


@pytest.mark.parametrize("name", ["worker", "db psql", "stripe reconcile"])
def test_help_fills_its_lines(
    run_command: RunCommand, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A paragraph's lines are joined, and folded at the terminal's width."""
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 300)
    text = run_command(*name.split(), "--help").out.partition("\n╭")[0]
    paragraphs = [line for line in text.splitlines()[2:] if line.strip()]
    assert len(paragraphs) > 1
    assert [each for each in paragraphs if not each.strip().endswith(".")] == []


def test_a_busy_port_is_named(
    run_command: RunCommand, worker_database: ConnectionParameters
) -> None:
    """Before anything is started: exit code 78 and the port."""
    result = run_command("serve", "--port", str(worker_database.port))
    assert (result.exit_code, result.out) == (78, "")
    assert str(worker_database.port) in result.err
