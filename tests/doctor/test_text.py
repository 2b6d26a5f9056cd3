"""What a reader of the text sees: one trouble stands out, sentences are whole, the end counts."""

import re

import pytest

from src.common.doctor.catalogue import CHECKS
from src.common.doctor.checks import Needs, Status
from src.common.settings import get_settings
from src.local_postgres import free_port
from tests.cli.conftest import RunCommand
from tests.doctor.system import System, asked

NEEDING = [each.name for each in CHECKS if each.needs in {Needs.DATABASE, Needs.TABLES}]


@pytest.fixture
def out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings lead to where no server listens."""
    monkeypatch.setenv("DATABASE_HOST", "127.0.0.1")
    monkeypatch.setenv("DATABASE_PORT", str(free_port()))
    get_settings.cache_clear()


@pytest.mark.usefixtures("out_of_reach")
def test_checks_that_need_the_database_are_one_entry(run_command: RunCommand) -> None:
    """It names them all; the one failure is another entry, and the last line counts every check."""
    result = run_command("doctor")
    *_, entry, step, counted = result.out.splitlines()
    assert entry == (
        f"unknown {len(NEEDING)} checks not looked at, the database is out of reach: "
        f"{', '.join(NEEDING)}."
    )
    assert step.strip() == "next: flashslides doctor database"
    assert result.out.count("out of reach") == 1
    assert re.search(r"^fail    database: ", result.out, re.MULTILINE)
    numbers = re.fullmatch(
        r"(\d+ ok, )?(\d+ warn, )?1 fail, (\d+) unknown(, \d+ skipped)?", counted
    )
    assert numbers is not None, counted
    assert int(numbers[3]) >= len(NEEDING)
    assert sum(map(int, re.findall(r"\d+", counted))) == len(CHECKS)


@pytest.mark.usefixtures("out_of_reach")
def test_a_single_check_that_could_not_begin_is_told_as_any(run_command: RunCommand) -> None:
    """With nothing to count."""
    assert run_command("doctor", "worker").out.splitlines() == [
        "unknown worker: Not looked at: the database is out of reach.",
        "        next: flashslides doctor database",
    ]


@pytest.mark.usefixtures("out_of_reach")
def test_json_has_an_item_a_check(run_command: RunCommand) -> None:
    """Whether it could begin or not."""
    answer = run_command("doctor", "--json").json
    assert [each["name"] for each in answer["checks"]] == [check.name for check in CHECKS]
    assert {each["status"] for each in answer["checks"]} <= set(Status)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("settings", r"ENV=local\. .+ The other \d+ settings have their defaults\."),
        ("settings-names", "Every variable that is named like a setting of ours is one."),
        ("dead-events", r"No event was given up\."),
        ("late-events", r"No event is late\."),
        ("worker-failures", r"No work failed within a day; 0 failures ever\."),
    ],
)
def test_what_is_right_is_said_in_whole_sentences(system: System, name: str, says: str) -> None:
    """Also where there is nothing to tell."""
    assert system
    found = asked(name)
    assert found.status == "ok"
    assert re.fullmatch(says, found.seen), found.seen
