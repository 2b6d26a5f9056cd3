"""Auditors nobody here wrote check exports of random histories."""

import datetime as dt
import shutil
import subprocess
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy.orm import Session

from src.common.credits.operations import execute
from src.common.exceptions import Invalid
from src.common.reports.journal import Program, journal
from src.common.reports.journal_lines import read_double_entries
from src.common.reports.snapshots import take_snapshot
from tests.credits import books
from tests.credits.clock import set_clock, settable_clock
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


@pytest.mark.parametrize("zone", ["CET", "Europe/Berlin"])
def test_days_are_those_of_the_time_zone(db: Session, zone: str) -> None:
    """Half past ten in the evening of UTC is the next day there in summer, by either name.

    The months end in Python, and the days in PostgreSQL, to which CET is an abbreviation too.
    """
    evening = dt.datetime(2026, 6, 30, 22, 30, tzinfo=dt.UTC)
    noon = dt.datetime(2026, 7, 2, 12, tzinfo=dt.UTC)
    with settable_clock(db.connection()):
        set_clock(db, evening)
        execute(db, [books.grant(books.make_user(db).user_id, 5)], now=evening)
        written = written_journal(db, noon, zone)
    assert '2026-07-01 * "grant"' in written


def test_a_time_zone_that_postgresql_does_not_know_is_refused(db: Session) -> None:
    """The field is named; Python knows more of them on some machines."""
    snapshot = take_snapshot(db)
    with pytest.raises(Invalid) as refused:
        next(read_double_entries(db, snapshot, snapshot.now, zone="Nowhere", by_day=False))
    assert refused.value.details["field"] == "time_zone"


def written_journal(db: Session, now: dt.datetime | None, name: str) -> list[str]:
    """For beancount, up to this instant."""
    snapshot = take_snapshot(db, now=now)
    written = journal(
        db, snapshot, Program.BEANCOUNT, until=snapshot.now, zone=ZoneInfo(name), by_day=False
    )
    return "\n".join(written).splitlines()


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
