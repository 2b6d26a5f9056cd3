"""`flashslides shards …`: groups are made, listed, opened, closed and counted."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from src.cli import exit_codes
from src.common.database import get_engine, init_db
from src.common.exceptions import SettingsError
from src.common.postgres.migrations import head_revision
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.cli.conftest import RunCommand, data_folder, run_command
from tests.sharding.conftest import GROUPS
from tests.sharding.people import user_of

__all__ = ["data_folder", "run_command"]


@pytest.fixture
def shards(groups: ConnectionParameters, run_command: RunCommand) -> Callable[..., Any]:
    """What `shards … --json` prints, once it has succeeded."""
    assert groups

    def run(*arguments: str) -> Any:
        result = run_command("shards", *arguments, "--json")
        assert result.exit_code == 0, result.err
        return result.json

    return run


def test_groups_are_made_and_listed(shards: Callable[..., Any]) -> None:
    """With their names, whether newcomers come there, and the revision of their tables."""
    assert shards("create", "--count", "2", "--closed") == {"created": ["g0009", "g0010"]}
    listed = shards("list")
    assert [each["schema"] for each in listed] == [*GROUPS, "g0009", "g0010"]
    assert [each["is_open"] for each in listed] == [True] * 8 + [False] * 2
    assert {each["users_count"] for each in listed} == {None}  # nobody has counted them
    assert {each["revision"] for each in listed} == {head_revision()}


def test_who_was_told_of_no_groups_is_told_of_them(
    groups: ConnectionParameters, run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a divided database, in place of a table that is missing; the service does not start."""
    assert groups
    monkeypatch.setenv("SHARDING", "none")
    get_settings.cache_clear()
    for arguments in (("user", "list"), ("shards", "list"), ("verify",)):
        result = run_command(*arguments)
        assert (result.exit_code, result.out) == (exit_codes.MISCONFIGURED, "")
        assert "keeps its users in groups: set SHARDING=schemas" in result.err
    with pytest.raises(SettingsError, match="keeps its users in groups"):
        init_db()


def test_newcomers_are_assigned_or_not(shards: Callable[..., Any]) -> None:
    """A group is closed to newcomers, and opened again."""
    for option, is_open in (("--closed", False), ("--open", True)):
        assert shards("assign", "g0002", option) == {"schema": "g0002", "is_open": is_open}
        with get_engine().connect() as connection:
            found = connection.execute(text("SELECT schema, is_open FROM user_groups"))
            assert ("g0002", is_open) in {tuple(row) for row in found}


def test_users_are_counted(shards: Callable[..., Any]) -> None:
    """Each group's, and how many more than on average."""
    for _ in range(8):
        user_of("g0003")
    counted = {each["schema"]: each for each in shards("balance")}
    assert [counted["g0003"][name] for name in ("users_count", "above_average")] == [8, 7]
    assert [counted["g0004"][name] for name in ("users_count", "above_average")] == [0, -1]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (("assign", "g9999", "--open"), 3, "There is no group g9999"),
        (("move", "g0001", "10.0.0.1:5432"), 78, "needs Citus"),
        (("create", "--count", "0"), 2, "count"),
        (("copy", "--from", "nowhere"), 78, "nowhere"),
        (("copy", "--from", "old", "--dry-run", "--cut-over"), 2, "not both"),
    ],
    ids=["unknown group", "move", "no group", "unknown service", "two ways"],
)
def test_what_cannot_be_done_is_said(
    groups: ConnectionParameters,
    run_command: RunCommand,
    arguments: tuple[str, ...],
    exit_code: int,
    said: str,
) -> None:
    """In a sentence, with the exit code of its kind."""
    assert groups
    result = run_command("shards", *arguments)
    assert (result.exit_code, result.out) == (exit_code, "")
    assert said in result.err


def test_without_groups_the_commands_say_so(
    fresh_database: ConnectionParameters, run_command: RunCommand
) -> None:
    """The setting is named."""
    assert fresh_database
    for arguments in (("list",), ("create",), ("balance",), ("assign", "g0001", "--open")):
        result = run_command("shards", *arguments)
        assert (result.exit_code, result.out) == (78, "")
        assert "SHARDING" in result.err


def test_an_undivided_database_is_not_served(
    fresh_database: ConnectionParameters, run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users in public would not be found where groups are looked for."""
    assert fresh_database
    monkeypatch.setenv("SHARDING", "schemas")
    get_settings.cache_clear()
    result = run_command("shards", "list")
    assert result.exit_code == 78
    assert "db upgrade" in result.err
