"""What is wrong with the database is one line and an exit code, whichever command meets it."""

import secrets
import socket
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
import structlog
from alembic.script import ScriptDirectory
from sqlalchemy import text

from src.cli import worker
from src.common.credits.domain.commands import Grant
from src.common.database import SessionLocal
from src.common.doctor.catalogue import CHECKS
from src.common.doctor.checks import Needs
from src.common.postgres.migrations import alembic_config
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters, free_port
from tests.cli.conftest import Note, RunCommand
from tests.cli.every_command import COMMAND_LINES, WITHOUT_DATABASE, arguments_of, commands
from tests.cli.test_worker_threads import until
from tests.credits.committed import balances
from tests.credits.ledger import at, do, someone
from tests.fixtures.databases import Server, environment_of

LONG_AGO = -10 * 365 * 86_400
"""Seconds before the tests' start of time."""
WRONG_PASSWORD = "wr0ng-secret"
ASKING = sorted(COMMAND_LINES.keys() - WITHOUT_DATABASE.keys())
CONDITIONS = {
    "no server": (75, "127.0.0.1:{port} (Connection refused): start it, or correct DATABASE_HOST"),
    "wrong password": (78, "correct DATABASE_USER or DATABASE_PASSWORD"),
    "no such role": (78, "correct DATABASE_USER or DATABASE_PASSWORD"),
    "missing database": (78, "correct DATABASE_NAME, or make that database"),
    "not migrated": (78, "run `flashslides db upgrade`"),
    "older": (78, "run `flashslides db upgrade`"),
}
"""The exit code, and what the line says to do."""
ANOTHER_ANSWER = {
    ("db adopt", "not migrated"): (78, "There is no table users"),
    ("db adopt", "older"): (78, "run `db upgrade`"),
}
ALL_RIGHT = {
    ("db current", "not migrated"): "it is at no revision, and that is the answer",
    ("db current", "older"): "the revision is the answer",
    ("db downgrade", "not migrated"): "there is nothing to undo",
    ("db downgrade", "older"): "what to undo is its own business",
    ("db grant-runtime", "older"): "all tables are there",
    ("db upgrade", "not migrated"): "this is what it is for",
    ("db upgrade", "older"): "this is what it is for",
    **dict.fromkeys(
        [("doctor", condition) for condition in CONDITIONS], "it answers what is wrong (below)"
    ),
}
"""Conditions that are none to a command, and why."""
BROKEN_AND_MENDED: tuple[tuple[LiteralString, LiteralString], ...] = (
    ("ALTER ROLE {} CONNECTION LIMIT 0", "ALTER ROLE {} CONNECTION LIMIT -1"),
    ("ALTER ROLE {} PASSWORD 'other'", "ALTER ROLE {} PASSWORD 'x'"),
    ("ALTER ROLE {} NOLOGIN", "ALTER ROLE {} LOGIN"),
)
"""What happens to a running worker's role."""


@pytest.fixture(scope="module")
def places(server: Server) -> Generator[dict[str, ConnectionParameters]]:
    """Where each condition is met."""
    of_test = secrets.token_hex(4)
    old = server.clone(f"old_{of_test}")
    with psycopg.connect(
        host=old.host, port=old.port, user=old.user, password=old.password, dbname=old.database
    ) as connection:
        first = ScriptDirectory.from_config(alembic_config()).get_base()
        connection.execute("UPDATE alembic_version SET version_num = %s", [first])
    empty = server.empty(f"empty_{of_test}")
    yield {
        "no server": replace(old, port=free_port()),
        "wrong password": replace(old, password=WRONG_PASSWORD),
        "no such role": replace(old, user="nobody", password=WRONG_PASSWORD),
        "missing database": replace(old, database=f"missing_{of_test}"),
        "not migrated": empty,
        "older": old,
    }
    for made in (old, empty):
        server.drop(made.database)


@pytest.fixture
def point_to(
    places: dict[str, ConnectionParameters], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], ConnectionParameters]:
    """Have the settings lead to where a condition is met."""

    def point(condition: str) -> ConnectionParameters:
        place = places[condition]
        for name, value in environment_of(place).items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()
        return place

    return point


def test_every_command_is_asked() -> None:
    """A new command needs an entry in `every_command.py`."""
    assert commands().keys() == COMMAND_LINES.keys()
    assert WITHOUT_DATABASE.keys() < COMMAND_LINES.keys()


@pytest.mark.parametrize(
    ("name", "condition"),
    [each for each in product(ASKING, CONDITIONS) if each not in ALL_RIGHT],
)
def test_a_condition_of_the_database_is_one_line(
    run_command: RunCommand,
    point_to: Callable[[str], ConnectionParameters],
    note: Note,
    name: str,
    condition: str,
) -> None:
    """It says where and what to do, never the password; the exit code says whether to wait."""
    place = point_to(condition)
    options = ["--port", str(free_port())] if name == "serve" else []
    result = run_command(*arguments_of(name), *options)
    exit_code, says = ANOTHER_ANSWER.get((name, condition), CONDITIONS[condition])
    assert (result.exit_code, result.out) == (exit_code, "")
    [line] = result.err.splitlines()
    assert line.startswith("flashslides: ")
    assert says.format(port=place.port) in line
    assert place.password not in line
    note(name, condition, result.exit_code, line)


@pytest.mark.parametrize(
    ("condition", "check", "says"),
    [
        ("no server", "database", "start it, or correct DATABASE_HOST and DATABASE_PORT"),
        ("wrong password", "database", "correct DATABASE_USER or DATABASE_PASSWORD"),
        ("no such role", "database", "correct DATABASE_USER or DATABASE_PASSWORD"),
        ("missing database", "database", "correct DATABASE_NAME, or make that database"),
        ("not migrated", "migrations", "flashslides db upgrade"),
        ("older", "migrations", "flashslides db upgrade"),
    ],
)
def test_doctor_answers_whatever_is_wrong_with_the_database(
    run_command: RunCommand,
    point_to: Callable[[str], ConnectionParameters],
    note: Note,
    condition: str,
    check: str,
    says: str,
) -> None:
    """One check fails and says what to do; what needs what is missing is unknown, and never ok."""
    place = point_to(condition)
    result = run_command("doctor", "--json")
    assert (result.exit_code, result.err) == (2, "")
    assert place.password not in result.out
    answer = result.json
    assert answer["status"] == "fail"
    found = {each["name"]: each for each in answer["checks"]}
    assert (found[check]["status"], found[check]["next"]) == ("fail", says)
    needing = {
        each.name
        for each in CHECKS
        if each.needs is Needs.TABLES or (each.needs is Needs.DATABASE and check == "database")
    }
    assert {found[name]["status"] for name in needing} == {"unknown"}
    assert {found[name]["next"] for name in needing} == {f"flashslides doctor {check}"}
    note("doctor", condition, result.exit_code, f"{check}: {found[check]['next']}")


def test_a_password_that_is_not_set_is_asked_for(
    run_command: RunCommand,
    point_to: Callable[[str], ConnectionParameters],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The driver gives up by itself, with words of its own: no server that is out of reach."""
    point_to("not migrated")
    monkeypatch.delenv("DATABASE_PASSWORD")
    get_settings.cache_clear()
    result = run_command("user", "show", "ada@example.com")
    assert result.exit_code == 78
    assert "correct DATABASE_USER or DATABASE_PASSWORD" in result.err


def test_a_host_nobody_knows_is_out_of_reach(
    run_command: RunCommand,
    point_to: Callable[[str], ConnectionParameters],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The settings' host and port are named, the driver having none."""
    place = point_to("not migrated")
    monkeypatch.setenv("DATABASE_HOST", "nobody.invalid")
    get_settings.cache_clear()
    result = run_command("user", "show", "ada@example.com")
    assert result.exit_code == 75
    assert f"at nobody.invalid:{place.port}" in result.err


@pytest.mark.parametrize(
    ("answer", "mode", "reason"),
    [
        (b"N", "require", "server does not support SSL, but SSL was required"),
        (b"S", "verify-full", "root certificate file"),
        (b"S", "nonsense", "invalid sslmode value"),
    ],
)
def test_tls_that_is_not_agreed_on_is_configured_wrongly(
    run_command: RunCommand,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    answer: bytes,
    mode: str,
    reason: str,
) -> None:
    """The server is there, or need not be: to start it, or to wait, mends nothing."""
    monkeypatch.setenv("PGSSLMODE", mode)
    monkeypatch.setenv("PGSSLROOTCERT", str(tmp_path / "none.crt"))
    with asked_for_tls(answer) as port:
        monkeypatch.setenv("DATABASE_HOST", "127.0.0.1")
        monkeypatch.setenv("DATABASE_PORT", str(port))
        get_settings.cache_clear()
        result = run_command("user", "show", "ada@example.com")
    assert (result.exit_code, len(result.err.splitlines())) == (78, 1), result.err
    assert reason in result.err
    assert "correct PGSSLMODE and its certificates" in result.err
    assert "start it" not in result.err


def test_a_full_server_is_worth_another_try(
    run_command: RunCommand,
    server: Server,
    fresh_database: ConnectionParameters,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a role that may open no connection (any more) meets it."""
    role = f"limited_{fresh_database.database}"
    server.execute("CREATE ROLE {} LOGIN PASSWORD 'x' CONNECTION LIMIT 0", role)
    monkeypatch.setenv("DATABASE_USER", role)
    monkeypatch.setenv("DATABASE_PASSWORD", "x")
    get_settings.cache_clear()
    result = run_command("user", "show", "ada@example.com")
    server.execute("DROP ROLE {}", role)
    assert result.exit_code == 75
    assert f"127.0.0.1:{fresh_database.port} has no connection left" in result.err


def test_a_role_without_privileges_is_told_of_them(
    run_command: RunCommand,
    server: Server,
    fresh_database: ConnectionParameters,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may connect, and read nothing."""
    role = f"stranger_{fresh_database.database}"
    server.execute("CREATE ROLE {} LOGIN PASSWORD 'x'", role)
    monkeypatch.setenv("DATABASE_USER", role)
    monkeypatch.setenv("DATABASE_PASSWORD", "x")
    get_settings.cache_clear()
    result = run_command("user", "show", "ada@example.com")
    server.execute("DROP ROLE {}", role)
    assert (result.exit_code, len(result.err.splitlines())) == (78, 1)
    assert "permission denied for table" in result.err
    assert "flashslides db grant-runtime" in result.err


@pytest.mark.usefixtures("fresh_database")
def test_a_newer_release_s_database_is_one_line_where_it_cannot_be_used(
    run_command: RunCommand,
) -> None:
    """What it still has is used; what it has not, and migrations of its own, are 78."""
    assert run_command("user", "create", "ada@example.com").exit_code == 0
    with SessionLocal.begin() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'newer'"))
        session.execute(text("DROP TABLE api_keys"))
    assert run_command("user", "show", "ada@example.com").exit_code == 0
    for name in ("api-key list", "db check", "db current", "db downgrade base", "db upgrade"):
        result = run_command(*name.split())
        assert (result.exit_code, len(result.err.splitlines())) == (78, 1)
        assert "install the newer release" in result.err


@pytest.mark.usefixtures("fresh_database")
@pytest.mark.parametrize("arguments", [("upgrade",), ("downgrade", "base")])
def test_a_migration_that_fails_says_why(run_command: RunCommand, arguments: Sequence[str]) -> None:
    """Its name and the database's own words, and no advice to run it again."""
    before_it_indexes_purchases = "b52e9d1f7a64"
    at_first = run_command("db", "downgrade", before_it_indexes_purchases, "--allow-data-loss")
    assert at_first.exit_code == 0, at_first.err
    with SessionLocal.begin() as session:
        session.execute(text("ALTER TABLE transactions RENAME TO moved"))
    result = run_command("db", *arguments)
    assert result.exit_code == 1
    [line] = result.err.splitlines()
    assert 'UndefinedTable: relation "transactions" does not exist' in line
    assert "db upgrade" not in line


@pytest.mark.usefixtures("fresh_database")
def test_a_defect_keeps_its_traceback(run_command: RunCommand) -> None:
    """A table that is missing from the newest revision is not explained away."""
    with SessionLocal.begin() as session:
        session.execute(text("DROP TABLE api_keys"))
    result = run_command("api-key", "list")
    assert result.exit_code == 1
    assert "UndefinedTable" in result.err


def test_a_worker_that_loses_the_database_says_so_once_a_round_and_goes_on(
    server: Server, fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong with it, of seven kinds of work; no traceback; then it does its work."""
    role = f"worker_{fresh_database.database}"
    server.execute("CREATE ROLE {} LOGIN PASSWORD 'x' IN ROLE postgres", role)
    monkeypatch.setenv("DATABASE_USER", role)
    monkeypatch.setenv("DATABASE_PASSWORD", "x")
    get_settings.cache_clear()
    monkeypatch.setattr(worker, "INTERVAL_SECONDS", 0.2)
    with structlog.testing.capture_logs() as logs, worker.working():
        for breaks, mends in BROKEN_AND_MENDED:
            server.execute(breaks, role)
            end_connections(server, role)
            before = len(logs)
            until(lambda before=before: len(logs) >= before + 3)  # type: ignore[misc]  # mypy has no types for defaults
            server.execute(mends, role)
        with SessionLocal.begin() as session:
            user_id = someone(session)
            do(session, Grant, user_id, LONG_AGO, amount=10, expires_at=at(LONG_AGO + 1))
        until(lambda: balances([user_id]) == [0])
    end_connections(server, role)
    server.execute("DROP ROLE {}", role)
    database_lines = [each for each in logs if each["event"].startswith("The database")]
    assert {each["event"] for each in database_lines} == {
        "The database does not serve; it is tried again"
    }
    told = [each for each in logs if each["log_level"] not in {"info", "debug"}]
    assert [each for each in told if each not in database_lines] == []


def end_connections(server: Server, role: str) -> None:
    """As the server does when it stops."""
    with server.admin() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [role]
        )


@contextmanager
def asked_for_tls(answer: bytes) -> Generator[int]:
    """A port where every client that asks for TLS gets this answer, and no more."""

    def answer_all() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # the test is over
                return
            with client:
                client.recv(8)
                client.sendall(answer)
                client.recv(8)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_all)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
