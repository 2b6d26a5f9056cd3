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
from src.common.models.credit_entry import EntryKind
from src.common.reports.journal import journal
from src.common.reports.journal_accounts import ACCOUNTS, OF_MONEY, OWED, pairs
from src.common.reports.journal_lines import Entries, Program
from src.common.reports.movements import Movements
from src.common.reports.periods import By, boundaries
from src.common.reports.revenue import EARNED_AS, KEPT, Revenue
from src.common.reports.snapshots import take_snapshot
from src.html_pages import in_units
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
    bounds = [snapshot.now - dt.timedelta(days=1), snapshot.now]
    with pytest.raises(Invalid) as refused:
        Entries(db, snapshot, Program.HLEDGER, bounds, zone="Nowhere", by_day=False)
    assert refused.value.details["field"] == "time_zone"


def test_what_counts_from_a_later_instant_is_in_the_journal_of_now(db: Session) -> None:
    """As in the balances: where a clock went back, all that is booked counts."""
    now = dt.datetime(2026, 6, 30, 12, tzinfo=dt.UTC)
    user_id = books.make_user(db).user_id
    with settable_clock(db.connection()):
        for instant in (now - dt.timedelta(days=1), now + dt.timedelta(days=1)):
            set_clock(db, instant)
            execute(db, [books.grant(user_id, 5)], now=instant)
        written = written_journal(db, now, "UTC")
    assert written.count('2026-06-30 * "grant"') == 1
    assert "2026-07-01 balance Liabilities:Credits:Promo  -10 CREDITS" in written


def test_each_months_end_has_the_figures_of_the_reports(db: Session) -> None:
    """What the journal asserts is what `movements` and `revenue` close with, month by month."""
    start = dt.datetime(2026, 1, 20, tzinfo=dt.UTC)
    with settable_clock(db.connection()):
        history = History(db, 7, start=start, step=dt.timedelta(hours=20))
        history.go_on(150)
        snapshot = take_snapshot(db, now=history.now)
        bounds = boundaries(start, history.now, By.MONTH, dt.UTC)
        wanted = {
            (asserted_on(end), f"Liabilities:Credits:{source.capitalize()}", str(-row[-1]))
            for row in Movements(db, snapshot, bounds).rows()
            for _, end, source in [row[:3]]
        } | {
            (asserted_on(end), "Liabilities:DeferredRevenue", in_units(-row[-1], currency))
            for row in Revenue(db, snapshot, bounds).rows()
            for _, end, currency in [row[:3]]
        }
        written = written_journal(db, history.now, "UTC")
    asserted = {
        (day, account, amount)
        for day, word, account, amount, _ in (
            line.split() for line in written if " balance " in line
        )
        if word == "balance" and not account.startswith("Liabilities:Held")
    }
    assert asserted == wanted
    assert len({day for day, *_ in wanted}) > 2


def asserted_on(end: dt.datetime) -> str:
    """Beancount takes the balance for that at the day's beginning."""
    return str((end - dt.timedelta(microseconds=1)).date() + dt.timedelta(days=1))


def test_every_way_money_is_earned_has_an_account() -> None:
    """So has every kind of entry, on lots of every source."""
    assert OF_MONEY.keys() == EARNED_AS
    assert {kind for kind, *_ in pairs()} == {*EntryKind, KEPT, OWED}
    assert {account for *_, pair in pairs() for account in pair} <= set(ACCOUNTS)


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
