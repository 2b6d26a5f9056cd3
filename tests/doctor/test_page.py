"""The page about the doctor: its commands run, its tables are the code's."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session
from typer.core import TyperGroup
from typer.main import get_command

from scripts.reference import with_checks
from src.cli.commands import app
from src.common.doctor.checks import Status
from tests.cli.conftest import RunCommand
from tests.document.test_blocks import ROOT, blocks, page

PAGE = "docs/how-to/find-what-is-wrong.md"
COMMANDS = [line for block in blocks(PAGE, "bash") for line in block.splitlines()]
SOURCES = sorted((ROOT / "src" / "common" / "doctor").glob("*.py"))
NAMED = re.compile(r"""["'`(: ](flashslides (?:[a-z-]+ ?)+)""")


def test_the_page_lists_every_check() -> None:
    """`just reference` was run after the last change of a check."""
    assert page(PAGE) == with_checks(page(PAGE))


@pytest.mark.parametrize("command_line", COMMANDS)
def test_a_command_of_the_page_runs(flashslides: RunCommand, command_line: str) -> None:
    """Whatever it finds: the tests' server is not durable, and nobody works."""
    _, *words = shlex.split(command_line)
    result = flashslides(*words)
    assert result.exit_code in (0, 1, 2)
    assert (result.err, "Traceback" in result.out) == ("", False)
    assert result.out


def test_the_page_s_example_is_what_is_printed(flashslides: RunCommand) -> None:
    """In a pipe, where no line is broken."""
    [example] = blocks(PAGE, "text")
    printed = flashslides("doctor", "late-events").out
    assert printed.strip() == example.splitlines()[0]


def test_the_page_says_every_status() -> None:
    """In the table of marks."""
    assert re.findall(r"^\| `(\w+)` \|", page(PAGE).partition("## Ask")[0], re.MULTILINE) == [
        *Status
    ]


def test_the_page_s_grant_is_sql(db: Session) -> None:
    """For a role that is there."""
    [statement] = blocks(PAGE, "sql")
    db.execute(text("CREATE ROLE flashslides_service"))
    db.execute(text(statement))


@pytest.mark.parametrize("source", SOURCES, ids=lambda it: it.stem)
def test_a_next_step_is_a_command_that_exists(source: Path) -> None:
    """Each `flashslides …` that a check names."""
    for named in NAMED.findall(source.read_text(encoding="utf-8")):
        command: Any = get_command(app)
        words = named.split()[1:]
        while isinstance(command, TyperGroup) and words:
            assert words[0] in command.commands, named
            command = command.commands[words.pop(0)]
