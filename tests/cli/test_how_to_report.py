"""`docs/how-to/report-and-reconcile-figures.md` and `docs/reference/reports.md`, as written."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from src.common.credits.domain.commands import Spend
from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.common.reports import movements
from src.local_postgres import ConnectionParameters, free_port
from tests.cli.conftest import RunCommand
from tests.cli.processes import Program
from tests.credits import books
from tests.credits.ledger import ask

DOCS = Path(__file__).parents[2] / "docs"
OVER_HTTP = "## Fetch a report over HTTP"
PAGES = ("how-to/report-and-reconcile-figures.md", "reference/reports.md")


def blocks_of(written: str) -> list[str]:
    """The blocks of commands, in their order."""
    return re.findall(r"^```bash\n(.*?)^```", written, re.MULTILINE | re.DOTALL)


def lines_of(page: str) -> list[str]:
    """Every command of a page, in their order, up to those that ask over HTTP."""
    before, _, _ = (DOCS / page).read_text().partition(OVER_HTTP)
    blocks = (block.replace("\\\n", " ") for block in blocks_of(before))
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.xdist_group("embedded servers")
def test_a_report_is_fetched_as_written(reader: Program) -> None:
    """A key is made, and `curl` leaves the file; without a key it fails and says why."""
    _, _, written = (DOCS / PAGES[0]).read_text().partition(OVER_HTTP)
    port, file = free_port(), reader.folder / "movements-of-november.csv"
    [make_key, fetch] = (
        block.replace("http://localhost:8000", f"http://localhost:{port}")
        for block in blocks_of(written)
    )
    with reader.serve(port):
        refused = bash(reader, f"KEY=none\n{fetch}")
        said = file.read_text()
        fetched = bash(reader, make_key + fetch)
    assert (refused.returncode, "401" in refused.stderr) == (22, True), refused.stderr
    assert "AUTH_TOKEN_INVALID" in said
    assert (fetched.returncode, fetched.stdout) == (0, ""), fetched.stderr
    assert file.read_text().startswith(",".join(column.name for column in movements.COLUMNS))


def bash(program: Program, block: str) -> subprocess.CompletedProcess[str]:
    """Run a block in the program's folder."""
    return subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", block],
        capture_output=True,
        text=True,
        cwd=program.folder,
        env=dict(program.environment),
        check=False,
    )


def test_every_command_does_what_the_pages_say(
    fresh_database: ConnectionParameters,
    run_command: RunCommand,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One after the other; auditors that are not installed are left out."""
    assert fresh_database
    with SessionLocal.begin() as session:
        user_id = books.make_user(session).user_id
        bought = books.purchase(session, user_id, 500)
        execute(session, [bought, ask(Spend, user_id, amount=120)])
    monkeypatch.chdir(tmp_path)
    for line in (line for page in PAGES for line in lines_of(page)):
        program, *arguments = shlex.split(line)
        if program == "flashslides":
            result = run_command(*arguments)
            assert result.exit_code == 0, result.err
            continue
        beside = Path(sys.executable).with_name(program)
        found = str(beside) if beside.exists() else shutil.which(program)
        if found is not None:
            subprocess.run([found, *arguments], check=True)
    assert (tmp_path / "ledger.hledger").read_text().startswith("commodity")
