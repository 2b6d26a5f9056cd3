"""`flashslides report`: figures of the whole ledger, for finance."""

import datetime as dt
import shutil
import tempfile
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from src.cli.choices import ReportByName, ReportFormatName, ReportNameName
from src.cli.instants import UTC, TimeZone, instant, zone
from src.cli.output import is_terminal, print_file, print_rows, progress
from src.cli.reach import get_settings, migrated_database
from src.common.exceptions import Invalid

if TYPE_CHECKING:
    from collections.abc import Callable

    from src.common.reports.catalogue import Wanted
    from src.common.reports.columns import Figures

_TABLE_ROWS = 1_000
"""Laid out together: so that memory is bounded, however many there are."""


def report(
    name: Annotated[ReportNameName, typer.Argument(metavar="NAME", help="Which report.")],
    *,
    since: Annotated[
        str | None,
        typer.Option(
            "--from", help="After which instant. Default: the beginning of the month of --to."
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", help="Up to which instant, or as of it. Default: now.")
    ] = None,
    by: Annotated[ReportByName | None, typer.Option(help="A row for each day, week …")] = None,
    time_zone: TimeZone = UTC,
    format_: Annotated[
        ReportFormatName, typer.Option("--format", help="What to write; table is for people.")
    ] = "table",
    output: Annotated[Path | None, typer.Option(help="The file to write. Default: stdout.")] = None,
    bom: Annotated[
        bool, typer.Option("--bom", help="Begin CSV with the mark that tells Excel it is UTF-8.")
    ] = False,
) -> None:
    """Report on all users' credits: movements, liability.

    The figures tie. The closing balances of `movements` are the sum of all balances as of that
    instant, and the credits of `liability`. Every run checks that. Exit code 1 means that they
    differ.
    """
    if bom and format_ != "csv":
        raise Invalid("--bom: goes with --format csv", "VALIDATION_ERROR")
    if output is not None and format_ == "table":
        raise Invalid("--output: goes with --format csv, json or xlsx", "VALIDATION_ERROR")
    if format_ == "xlsx" and output is None and is_terminal():
        raise Invalid("--format xlsx: name a file, --output FILE", "VALIDATION_ERROR")
    from src.common.reports.catalogue import ReportName, Wanted
    from src.common.reports.periods import By

    wanted = Wanted(
        name=ReportName(name),
        since=instant("--from", since, time_zone),
        until=instant("--to", until, time_zone),
        by=None if by is None else By(by),
        zone=zone(time_zone),
    )
    with migrated_database(get_settings()):
        if format_ == "table":
            _read(wanted, lambda figures: _print_table(figures, wanted.zone))
            return
        # What fails on the way leaves no file behind that looks like a report.
        with tempfile.TemporaryFile() as spooled:
            _read(wanted, lambda figures: _write(figures, format_, spooled, wanted.zone, bom))
            spooled.seek(0)
            if output is None:
                print_file(spooled)
            else:
                with output.open("wb") as file:
                    shutil.copyfileobj(spooled, file)


def _read(wanted: "Wanted", use: "Callable[[Figures], None]") -> None:
    """Read the report in a snapshot of its own, with its progress on stderr."""
    from src.common.database import SessionLocal
    from src.common.reports.catalogue import read_report
    from src.common.reports.columns import Figures
    from src.common.reports.snapshots import begin_report

    with SessionLocal.begin() as session, progress() as bars:
        task = bars.add_task(wanted.name.capitalize(), total=None)
        begin_report(session)
        figures = read_report(session, wanted)
        use(Figures(columns=figures.columns, rows=iter(bars.track(figures.rows, task_id=task))))


def _write(
    figures: "Figures",
    format_: str,
    file: IO[bytes],
    zone: dt.tzinfo,
    bom: bool,  # noqa: FBT001  private
) -> None:
    from src.common.reports.formats import Format, write

    write(figures, Format(format_), file, zone=zone, bom=bom)


def _print_table(figures: "Figures", zone: dt.tzinfo) -> None:
    """So many rows at a time, that memory is bounded however many there are."""
    from src.common.reports.formats import readable

    names = [column.name for column in figures.columns]
    rows = (
        {name: readable(value, zone) for name, value in zip(names, row, strict=True)}
        for row in figures.rows
    )
    portion = list(islice(rows, _TABLE_ROWS))
    while portion:
        print_rows(portion, as_json=False, empty="")
        portion = list(islice(rows, _TABLE_ROWS))
