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
from src.local_postgres import ConnectionParameters
from tests.cli.conftest import RunCommand
from tests.credits import books
from tests.credits.ledger import ask

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("how-to/report-and-reconcile-figures.md", "reference/reports.md")


def lines_of(page: str) -> list[str]:
    """Every command of a page, in their order."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


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
