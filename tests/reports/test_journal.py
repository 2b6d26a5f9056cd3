"""Auditors nobody here wrote check exports of random histories."""

import datetime as dt
import shutil
import subprocess
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy.orm import Session

from src.common.reports.journal import Program, journal
from src.common.reports.snapshots import take_snapshot
from tests.credits.clock import settable_clock
from tests.reports.histories import History

STARTS = (dt.datetime(2026, 3, 25, tzinfo=dt.UTC), dt.datetime(2026, 9, 20, tzinfo=dt.UTC))
PROGRAMS = {
    Program.BEANCOUNT: [str(Path(sys.executable).with_name("bean-check"))],
    Program.HLEDGER: ["hledger", "check", "--strict", "-f"],
}


def check(program: Program, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What the program says of a journal."""
    file = folder / f"ledger.{program}"
    file.write_text(text)
    return subprocess.run(
        [*PROGRAMS[program], str(file)], check=False, capture_output=True, text=True
    )


@pytest.mark.parametrize("program", Program)
@pytest.mark.parametrize(("seed", "start"), list(enumerate(STARTS)), ids=str)
def test_the_journal_is_accepted(
    db: Session, tmp_path: Path, program: Program, seed: int, start: dt.datetime
) -> None:
    """By entry and by day, as of now and of a past instant; a changed amount is not."""
    if shutil.which(PROGRAMS[program][0]) is None:
        pytest.skip(f"{program} is not installed")
    zone = ZoneInfo("Europe/Berlin")
    with settable_clock(db.connection()):
        history = History(db, seed, start=start, step=dt.timedelta(hours=9))
        history.go_on(150)
        snapshot = take_snapshot(db, now=history.now)
        middle = start + (history.now - start) / 2
        for until in (history.now, middle):
            for by_day in (False, True):
                written = "\n".join(
                    journal(db, snapshot, program, until=until, zone=zone, by_day=by_day)
                )
                said = check(program, written, tmp_path)
                assert said.returncode == 0, said.stdout + said.stderr
                assert "example.com" not in written
    lines = written.splitlines()
    asserted = max(
        number
        for number, line in enumerate(lines)
        if ("balance Liabilities:Credits" in line or " = " in line) and "CREDITS" in line
    )
    kept, lines[asserted] = lines[asserted], lines[asserted].replace(" CREDITS", "1 CREDITS")
    assert check(program, "\n".join(lines), tmp_path).returncode != 0
    lines[asserted] = kept
    changed = next(
        number for number, line in enumerate(lines) if line.startswith("  Liabilities:C")
    )
    account, amount, commodity = lines[changed].split()
    lines[changed] = f"  {account}  {int(amount) + 1} {commodity}"
    assert check(program, "\n".join(lines), tmp_path).returncode != 0
