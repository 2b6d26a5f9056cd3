"""`flashslides db start|stop|status|url|env|psql`."""

import json
from pathlib import Path
from urllib.parse import quote

import pytest
import typer
from typer.testing import CliRunner, Result

from src.cli.db_server import register
from src.common.settings import get_settings
from src.local_postgres import LocalPostgresError, read_connection, start, status


@pytest.fixture(autouse=True)
def data_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the test's folder the user's."""
    monkeypatch.setenv("FLASHSLIDES_DATA_DIR", str(folder))
    monkeypatch.delenv("DATABASE_HOST", raising=False)  # this worker's database, in a whole run
    get_settings.cache_clear()
    return folder


def run(*arguments: str) -> Result:
    """Run one command of the group."""
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, arguments)


def test_a_server_is_started_shown_and_stopped(folder: Path) -> None:
    """Its whole life by hand; JSON alone on stdout where it was asked for."""
    assert json.loads(run("status", "--json").stdout)["running"] is False
    started = run("start")
    seen = status(folder)
    assert f"process {seen.pid}" in started.stdout
    assert "Making a new database" in started.stderr
    assert "It runs already" in run("start").stdout
    shown = json.loads(run("status", "--json").stdout)
    assert seen.since is not None
    assert shown == {
        "folder": str(folder),
        "running": True,
        "pid": seen.pid,
        "version": seen.version,
        "port": seen.port,
        "holders": [],
        "keep_running": True,
        "since": seen.since.isoformat().replace("+00:00", "Z"),
        "log": str(folder / "server.log"),
    }
    human = run("status").stdout
    assert "runs until `flashslides db stop`" in human
    assert str(folder / "server.log") in human
    assert run("stop").stdout == "Stopped.\n"
    assert run("stop").stdout == "It was not running.\n"
    assert "stopped" in run("status").stdout


@pytest.mark.usefixtures("made")
def test_the_password_is_shown_only_when_asked_for(folder: Path) -> None:
    """`url` masks it, `url --show-password` and `env` are for those who need it."""
    start(folder)
    connection = read_connection(folder)
    assert connection is not None
    address = f"127.0.0.1:{connection.port}/flashslides"
    assert run("url").stdout == f"postgresql://postgres:********@{address}\n"
    shown = run("url", "--show-password").stdout
    assert shown == f"postgresql://postgres:{connection.password}@{address}\n"
    assert run("env").stdout.splitlines() == [
        "DATABASE_HOST=127.0.0.1",
        f"DATABASE_PORT={connection.port}",
        "DATABASE_NAME=flashslides",
        "DATABASE_USER=postgres",
        f"DATABASE_PASSWORD={connection.password}",
    ]
    for arguments in (("status",), ("status", "--json"), ("stop",)):
        assert connection.password not in run(*arguments).output


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("db.example", "postgresql://me:{}@db.example:5433/shop"),
        ("::1", "postgresql://me:{}@[::1]:5433/shop"),
        ("/run/pg", "postgresql://me:{}@/shop?host=/run/pg&port=5433"),
        ("a,::1", "postgresql://me:{}@/shop?host=a,::1&port=5433&target_session_attrs=primary"),
    ],
)
def test_the_url_is_the_configured_database_where_there_is_one(
    host: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DATABASE_HOST names a server by name, address or socket folder."""
    password = "p@ss/w:rd"
    monkeypatch.setenv("DATABASE_HOST", host)
    monkeypatch.setenv("DATABASE_PORT", "5433")
    monkeypatch.setenv("DATABASE_NAME", "shop")
    monkeypatch.setenv("DATABASE_USER", "me")
    monkeypatch.setenv("DATABASE_PASSWORD", password)
    get_settings.cache_clear()
    assert run("url").stdout.strip() == url.format("********")
    assert run("url", "--show-password").stdout.strip() == url.format(quote(password, safe=""))
    get_settings.cache_clear()


@pytest.mark.parametrize("command", ["url", "env"])
def test_without_a_database_the_sentence_says_how_to_make_one(command: str) -> None:
    """Neither makes one on the way."""
    result = run(command)
    assert isinstance(result.exception, LocalPostgresError)
    assert "Make one with `flashslides db start`" in str(result.exception)


@pytest.mark.usefixtures("made")
def test_psql_gets_its_arguments_and_a_server_for_its_time(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its exit status is ours; the server stops with it; the password is not in its arguments."""
    arguments = ("psql", "-XAt", "-c", "SELECT current_user, current_database()")
    assert run(*arguments).exit_code == 0
    assert capfd.readouterr().out == "postgres|flashslides\n"
    shell = r"\! tr '\0' ' ' < /proc/$PPID/cmdline"
    assert run("psql", "-X", "-c", shell).exit_code == 0
    connection = read_connection(folder)
    assert connection is not None
    assert connection.password not in capfd.readouterr().out
    assert run("psql", "-X", "-c", "nonsense").exit_code == 1
    assert not status(folder).running
