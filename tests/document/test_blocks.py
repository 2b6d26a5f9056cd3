"""Every block of code on a page is run by a test, and every command a page names can be given."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from typer.core import TyperGroup
from typer.main import get_command

from benchmarks import anchors, capacity, console, groups, notices, reports
from benchmarks import command as benchmark
from src.cli.commands import app
from src.common.credits import ledger
from src.common.settings import Settings
from tests.models.examples import a_user

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
RUN_BY = {
    "docs/explanation/chain.md": "tests/cli/test_chain.py",
    "README.md": "tests/document/test_readme.py",
    "CONTRIBUTING.md": "tests/document/test_contributing.py",
    "docs/benchmarks.md": "tests/document/test_blocks.py",
    "docs/database-architecture.md": "tests/document/test_document.py",
    "docs/decisions/0002-pins-without-a-lock-file.md": "tests/document/test_blocks.py",
    "docs/explanation/database-transactions.md": "tests/document/test_explanation.py",
    "docs/explanation/ledger.md": "tests/document/test_explanation.py",
    "docs/explanation/payments.md": "tests/cli/test_purchases.py",
    "docs/how-to/anchor-the-ledger.md": "tests/cli/test_how_to_anchor.py",
    "docs/how-to/ask-a-second-person.md": "tests/cli/test_how_to_ask.py",
    "docs/how-to/back-up-and-restore.md": "tests/migrations/test_backups.py",
    "docs/how-to/bring-a-database-over.md": "tests/migrations/test_adoption.py",
    "docs/how-to/change-the-schema.md": "tests/migrations/test_how_to.py",
    "docs/how-to/charge-an-endpoint.md": "tests/cli/test_how_to_charge.py",
    "docs/how-to/test-your-application.md": "tests/testing/test_page.py",
    "docs/how-to/deploy.md": "tests/migrations/test_deploy_page.py",
    "docs/how-to/trace-requests.md": "tests/tracing/test_switch.py",
    "docs/how-to/watch-with-prometheus.md": "tests/deploy/test_run_books.py",
    "docs/how-to/put-users-into-groups.md": "tests/sharding/test_page.py",
    "docs/how-to/read-from-a-replica.md": "tests/replicas/test_page.py",
    "docs/how-to/find-what-is-wrong.md": "tests/doctor/test_page.py",
    "docs/how-to/report-and-reconcile-figures.md": "tests/cli/test_how_to_report.py",
    "docs/how-to/receive-notices.md": "tests/notices/test_receivers.py",
    "docs/how-to/show-a-balance-as-it-changes.md": "tests/cli/test_how_to_show_a_balance.py",
    "docs/how-to/tell-others-what-happens.md": "tests/notices/test_page.py",
    "docs/how-to/use-the-console.md": "tests/console/test_how_to.py",
    "docs/local-postgres.md": "tests/document/test_blocks.py",
    "docs/offline-stripe.md": "tests/offline_stripe/test_page.py",
    "docs/how-to/plan-capacity.md": "tests/document/test_blocks.py",
    "docs/reference/cli.md": "tests/document/test_reference.py",
    "docs/reference/errors.md": "tests/document/test_reference.py",
    "docs/reference/http.md": "tests/api/test_http_page.py",
    "docs/reference/metrics.md": "tests/api/test_metrics_catalogue.py",
    "docs/reference/reports.md": "tests/cli/test_how_to_report.py",
    "docs/reference/settings.md": "tests/document/test_blocks.py",
    "docs/reference/what-the-database-refuses.md": "tests/document/test_blocks.py",
    "docs/tutorial.md": "tests/document/test_tutorial.py",
}
"""Who runs the blocks of a page, or compares them with what the code makes."""
BENCHMARKS = {
    "benchmarks": benchmark.main,
    "benchmarks.anchors": anchors.main,
    "benchmarks.capacity": capacity.main,
    "benchmarks.console": console.main,
    "benchmarks.groups": groups.main,
    "benchmarks.notices": notices.main,
    "benchmarks.reports": reports.main,
}
"""The modules that people run, and what they begin with."""
AN_ID = "00000000-0000-4000-8000-000000000001"
NOT_WHOLE = re.compile(r"[…<|\[]| ROLE| N$")
"""Commands of which a page shows only a part or a pattern."""


COMMANDS: Any = getattr(get_command(app), "commands")  # noqa: B009  a group's


def page(name: str) -> str:
    """A page's text."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    """A page's blocks of one language."""
    return [content for found, content in FENCED.findall(page(name)) if found == language]


def test_every_page_with_a_block_has_somebody_who_runs_it() -> None:
    """A page that gets its first block needs a line in the table above, and a test."""
    with_blocks = {
        str(each.relative_to(ROOT))
        for each in PAGES
        if any(language != "mermaid" for language, _ in FENCED.findall(each.read_text("utf-8")))
    }
    assert with_blocks == RUN_BY.keys()
    assert [test for test in RUN_BY.values() if not (ROOT / test).exists()] == []


def commands() -> list[str]:
    """Each `flashslides …` that a page names, in a block or in a sentence."""
    found: set[str] = set()
    for each in PAGES:
        if each.parts[-2:] == ("reference", "cli.md"):
            continue
        written = each.read_text(encoding="utf-8")
        for _, content in FENCED.findall(written):
            for line in content.replace("\\\n", " ").splitlines():
                found.update(re.findall(r"(?:^|uv run |[A-Z]=\S+ )(flashslides [^#>|;)]+)", line))
        found.update(re.findall(r"`(?:uv run )?(flashslides [^`\n]+)`", written))
    return sorted({each.strip() for each in found if not NOT_WHOLE.search(each.strip())})


def test_there_are_commands_to_look_at() -> None:
    """The expressions above find what pages show."""
    assert len(commands()) > 50
    assert "flashslides db grant-runtime flashslides_service" in commands()
    assert "flashslides stripe reconcile --since 2026-11-01 --repair" in commands()


@pytest.mark.parametrize("command_line", commands())
def test_a_command_exists_and_takes_these_options(command_line: str) -> None:
    """Its words are read as the command line reads them; nothing is done.

    A command may be named without what it requires: `flashslides credits refund`.
    """
    _, *words = shlex.split(re.sub(r"\$(PURCHASE|APPROVAL|ENDPOINT)", AN_ID, command_line))
    command: Any = get_command(app)
    names: list[str] = []
    while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
        name = words.pop(0)
        assert name in command.commands, command_line
        command = command.commands[name]
        names.append(name)
    if words and words != ["--help"] and names != ["bench"]:
        command.make_context(" ".join(names), words, resilient_parsing=False).close()


@pytest.mark.parametrize("command_line", [
    line.partition("#")[0].strip()
    for name in ("docs/benchmarks.md", "docs/how-to/plan-capacity.md")
    for block in blocks(name, "bash")
    for line in block.splitlines()
])  # fmt: skip
def test_the_benchmarks_take_these_options(
    command_line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command of the page is known with its options; groups of packages exist."""
    words = shlex.split(command_line)
    if words[:2] == ["uv", "sync"]:
        groups = tomllib.loads(page("pyproject.toml"))["dependency-groups"]
        assert words[2:] in [["--group", group] for group in groups]
        return
    shown = command_line.replace("flashslides bench", "python -m benchmarks").split()
    assert shown[:4] == ["uv", "run", "python", "-m"], command_line
    assert shown[4] in BENCHMARKS, command_line
    monkeypatch.setattr(sys, "argv", [*shown[4:], "--help"])
    with pytest.raises(SystemExit) as ended:
        BENCHMARKS[shown[4]]()
    assert ended.value.code == 0, capsys.readouterr().err


def test_the_readmes_folders_are_there() -> None:
    """Each that its last block names."""
    [tree] = blocks("README.md", "")
    named = re.findall(r"(?:^|\s)((?:[\w]+/)+)", tree)
    inside = {"credits/", "postgres/"}
    assert len(named) > 8
    assert [
        folder
        for folder in named
        if not (ROOT / ("src/common" if folder in inside else ".") / folder).is_dir()
    ] == []


def test_the_example_of_settings_names_settings() -> None:
    """As they are written in a `.env` file."""
    [example] = blocks("docs/reference/settings.md", "")
    names = [line.partition("=")[0] for line in example.splitlines()]
    assert names
    assert [name for name in names if name.lower() not in Settings.model_fields] == []


def test_the_first_example_of_a_refusal_is_refused(db: Session) -> None:
    """The page's statement, for somebody who has an entry."""
    [statement] = blocks("docs/reference/what-the-database-refuses.md", "sql")
    user = a_user()
    db.add(user)
    db.flush()
    ledger.grant(db, user.user_id, 5, key="start")
    db.execute(text(statement.replace("…", str(user.user_id))))
    with pytest.raises(DBAPIError, match="LEDGER_UNBALANCED"):
        db.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))


@pytest.mark.timeout(600)
def test_a_deployment_is_installed_as_the_decision_says(tmp_path: Path) -> None:
    """From the pins with their hashes: the checkout's `src` can then be imported from anywhere."""
    [install] = blocks("docs/decisions/0002-pins-without-a-lock-file.md", "bash")
    shutil.copytree(ROOT / "src", tmp_path / "src")
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"VIRTUAL_ENV", "PYTHONPATH"}
    }
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", install],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    python = tmp_path / ".venv/bin/python"
    subprocess.run(
        [str(python), "-c", "import src.api.src.main"], cwd="/", check=True, env=environment
    )
