"""`flashslides report`: figures in every format, in a snapshot of their own."""

import csv
import errno
import io
import json
import shutil
from pathlib import Path
from typing import IO, get_args

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from src.cli import output
from src.cli.choices import ReportNameName
from src.common.credits.domain.commands import Grant, Spend
from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.local_postgres import ConnectionParameters
from tests.cli.conftest import RunCommand
from tests.credits import books
from tests.credits.ledger import ask

TABLES = [name for name in get_args(ReportNameName) if name != "journal"]


@pytest.fixture
def reporting(fresh_database: ConnectionParameters, run_command: RunCommand) -> RunCommand:
    """On a database where somebody bought 500 credits and spent 120 of all."""
    assert fresh_database
    with SessionLocal.begin() as session:
        user_id = books.make_user(session).user_id
        bought = books.purchase(session, user_id, 500)
        execute(session, [bought, ask(Grant, user_id, amount=20), ask(Spend, user_id, amount=120)])
    return run_command


def test_every_report_in_every_format(reporting: RunCommand, tmp_path: Path) -> None:
    """The same rows; a table for people, and a file where one is named."""
    for name in TABLES:
        as_json = reporting("report", name, "--format", "json")
        assert as_json.exit_code == 0, as_json.err
        rows = json.loads(as_json.out)
        as_csv = reporting("report", name, "--format", "csv")
        assert len(list(csv.DictReader(io.StringIO(as_csv.out)))) == len(rows) > 0
        table = reporting("report", name)
        assert (table.exit_code, table.err) == (0, "")
        assert table.out
        book = tmp_path / f"{name}.xlsx"
        assert reporting("report", name, "--format", "xlsx", "--output", str(book)).exit_code == 0
        assert book.read_bytes().startswith(b"PK")
    for program in ("beancount", "hledger"):
        journal = reporting("report", "journal", "--format", program)
        assert "Liabilities:Credits:Purchase" in journal.out
        assert "example.com" not in journal.out


def test_the_figures_are_those_of_the_ledger(reporting: RunCommand) -> None:
    """500 cents for 500 credits; 100 of them are spent after the 20 that were given."""
    [promo, sold] = reporting("report", "movements", "--format", "json").json
    assert (promo["given"], promo["spent"], promo["closing"]) == (20, 20, 0)
    assert (sold["sold"], sold["spent"], sold["closing"]) == (500, 100, 400)
    [owed] = reporting("report", "liability", "--format", "json").json
    assert (owed["source"], owed["credits"], owed["value_cents"]) == ("purchase", 400, 400)
    [earned] = reporting("report", "revenue", "--format", "json").json
    assert (earned["sold_cents"], earned["spent_cents"], earned["closing_cents"]) == (500, 100, 400)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("liability", "--from", "2026-01-01"), "from"),
        (("liability", "--by", "day"), "by"),
        (("users", "--to", "2026-01-01"), "to"),
        (("movements", "--with-debt"), "with_debt"),
        (("movements", "--by", "entry"), "by"),
        (("movements", "--from", "2026-01-02", "--to", "2026-01-01"), "to"),
        (("movements", "--time-zone", "Nowhere"), "--time-zone"),
        (("movements", "--format", "hledger"), "format"),
        (("journal", "--format", "csv"), "format"),
        (("journal",), "--format"),
        (("payments", "--svg", "file"), "svg"),
        (("sales", "--test-money"), "test_money"),
        (("sales", "--bom"), "--bom"),
        (("sales", "--output", "file"), "--output"),
        (("sales", "--format", "csv", "--output", "/nowhere/file"), "--output"),
        (("sales", "--format", "csv", "--output", "/"), "--output"),
        (("sales", "--svg", "/nowhere/file"), "--svg"),
        (("sales", "--svg-size", "100x384"), "--svg-size"),
        (("sales", "--svg-size", "wide"), "--svg-size"),
        (("sales", "--svg-size", "960x10001"), "--svg-size"),
    ],
)
def test_what_a_report_does_not_take_is_named(
    reporting: RunCommand, arguments: tuple[str, ...], named: str
) -> None:
    """Exit code 2, and nothing is printed."""
    result = reporting("report", *arguments)
    assert (result.exit_code, result.out) == (2, "")
    assert named in result.err


def test_figures_are_drawn(reporting: RunCommand, tmp_path: Path) -> None:
    """Beside the figures; the picture has a line for each source, and words as text."""
    picture = tmp_path / "movements.svg"
    several = ("--from", "2025-01-01", "--by", "month")
    for periods, label in ((several, "credits in balances"), ((), "credits")):
        result = reporting("report", "movements", *periods, "--svg", str(picture))
        assert result.exit_code == 0, result.err
        assert result.out
        drawn = picture.read_text()
        assert ">purchase</text>" in drawn
        assert f">{label}</text>" in drawn
    result = reporting("report", "liability", "--svg", str(picture), "--svg-size", "480x960")
    assert result.exit_code == 0, result.err
    drawn = picture.read_text()
    assert 'width="360pt" height="720pt"' in drawn
    for words in ("purchase", "usd", "credits", "age in days", "0-30", "366+"):
        assert f">{words}</text>" in drawn


def test_a_terminal_shows_lines_without_their_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """CSV's are two characters long; what else a terminal would act on is made harmless."""
    file = tmp_path / "report.csv"
    file.write_bytes(b"a,b\r\n\x1b[31m,2\r\n")
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    with file.open("rb") as opened:
        output.print_file(opened)
    assert capsys.readouterr().out == "a,b\n\\x1b[31m,2\n"


def test_money_of_test_mode_is_apart(reporting: RunCommand) -> None:
    """Its credits count at a value of 0; where it is asked for, nothing else has a value."""
    with SessionLocal.begin() as session:
        session.execute(text("UPDATE transactions SET livemode = false"))
    [owed] = reporting("report", "liability", "--format", "json").json
    assert (owed["credits"], owed["value_cents"], owed["currency"]) == (400, 0, None)
    assert reporting("report", "revenue", "--format", "json").json == []
    arguments = ("--test-money", "--format", "json")
    [owed] = reporting("report", "liability", *arguments).json
    assert (owed["credits"], owed["value_cents"], owed["currency"]) == (400, 400, "usd")
    [earned] = reporting("report", "revenue", *arguments).json
    assert (earned["sold_cents"], earned["closing_cents"]) == (500, 400)
    for test_money in ((), ("--test-money",)):
        journal = reporting("report", "journal", "--format", "hledger", *test_money).out
        assert ("DeferredRevenue  " in journal) == bool(test_money)


def test_a_file_is_written_whole_or_not_at_all(
    reporting: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk the one before stays, and nothing lies beside it; a link stays a link."""
    file, link = tmp_path / "sales.csv", tmp_path / "link.csv"
    file.write_text("before")
    file.chmod(0o640)
    link.symlink_to(file)
    arguments = ("report", "sales", "--format", "csv", "--output", str(link))

    def fill_the_disk(_: IO[bytes], there: IO[bytes]) -> None:
        there.write(b"some")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(shutil, "copyfileobj", fill_the_disk)
        failed = reporting(*arguments)
    assert (failed.exit_code, failed.out) == (2, "")
    assert f"--output: {link} cannot be written (No space left on device)" in failed.err
    assert file.read_text() == "before"
    assert sorted(tmp_path.iterdir()) == [link, file]
    assert reporting(*arguments).exit_code == 0
    assert link.is_symlink()
    assert file.read_text().startswith("period_start,")
    assert file.stat().st_mode & 0o777 == 0o640
    assert sorted(tmp_path.iterdir()) == [link, file]


def test_figures_that_differ_are_an_error(reporting: RunCommand) -> None:
    """Somebody wrote past the triggers: exit code 1, and no figures."""
    with SessionLocal.begin() as session:
        _without_triggers(session)
        session.execute(text("UPDATE credit_lots SET remaining = remaining - 1 WHERE is_open"))
    for name in ("movements", "liability", "revenue", "journal --format hledger"):
        result = reporting("report", *name.split())
        assert (result.exit_code, result.out) == (1, "")
        assert "FIGURES_DIFFER" in result.err


def _without_triggers(session: Session) -> None:
    session.execute(text("SET LOCAL session_replication_role = replica"))
