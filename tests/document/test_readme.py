"""The README is true: its commands run as written, its links lead somewhere."""

import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from src.local_postgres import free_port
from tests.cli.processes import Program
from tests.fixtures.folders import folder_for_data

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
BASH = [text for language, text in BLOCKS if language == "bash"]
PYTHON = [text for language, text in BLOCKS if language == "python"]


@pytest.fixture
def program() -> Generator[Program]:
    """The command with nothing but a data folder and a port, as a new user has it."""
    with folder_for_data() as folder:
        environment = {
            "FLASHSLIDES_DATA_DIR": str(folder / "data"),
            "FLASHSLIDES_PG_PORT": str(free_port()),
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        }
        yield Program(folder, environment, is_installed=True)


@pytest.mark.xdist_group("embedded servers")
def test_the_first_five_minutes_go_as_written(program: Program) -> None:
    """Create a user, buy, replay: 500 credits and no more; then HTTP and Python, block by block.

    Changed are only the port, and `uv run`, since the tests run in its environment already.
    """
    port = free_port()
    url = f"http://localhost:{port}"
    _run_it, _test_it, first_success, over_http = BASH
    with program.serve(port):
        printed = _bash(program, first_success.replace("http://localhost:8000", url))
        assert len(re.findall(r"^http://127.0.0.1:\d+/c/pay/cs_test_", printed, re.MULTILINE)) == 1
        assert re.findall(r"credits_balance +(\d+)", printed) == ["0", "500", "500"]
        answered = _bash(program, over_http.replace("http://localhost:8000", url))
        assert '"credits_balance":500' in answered
        assert '"amount_paid_cents":500' in answered
        (from_python,) = PYTHON
        _run(program, [sys.executable, "-c", from_python])
        shown = program.run_json("user", "show", "ada@example.com")
        assert shown["preferences"] == {"company": "Acme Inc"}


def test_ci_runs_the_readmes_test_command() -> None:
    """What CI runs last is what a newcomer is told to run."""
    commands = (ROOT / ".ci" / "run").read_text().strip().splitlines()
    assert commands[-1] == BASH[1].strip()


def test_the_first_commands_are_two() -> None:
    """One runs the product and installs uv where it is missing, one passes the tests."""
    run_it, test_it = BASH[:2]
    assert "pip install uv" in run_it
    assert run_it.strip().endswith("uv run flashslides serve")
    assert test_it == "uv run pytest\n"


def _pages() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.md")]


@pytest.mark.parametrize("page", _pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    """A relative link names a file or folder of the repository."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def _bash(program: Program, block: str) -> str:
    return _run(program, ["bash", "-euo", "pipefail", "-c", block.replace("uv run ", "")])


def _run(program: Program, command: list[str]) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=dict(program.environment),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
