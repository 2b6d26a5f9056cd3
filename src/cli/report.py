"""`flashslides report`: figures of the whole ledger, for finance."""

import json
import re
import secrets
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from src.cli.choices import ReportByName, ReportFormatName, ReportNameName
from src.cli.instants import TimeZone, instant
from src.cli.output import is_terminal, print_file, print_rows, progress, say
from src.cli.replicas import FromReplica, reader_in_reach, say_who_answered
from src.common.exceptions import Invalid
from src.common.time_zones import UTC, find_zone

if TYPE_CHECKING:
    from collections.abc import Generator

    from src.common.replicas import Reader
    from src.common.reports.catalogue import Wanted
    from src.common.reports.plots import Picture
    from src.common.reports.snapshots import Tell

_SIDE_PX_MIN, _SIDE_PX_MAX = 200, 10_000
_TABLE_ROWS = 1_000
"""Laid out together: so that memory is bounded, however many there are."""


Svg = Annotated[
    Path | None,
    typer.Option(help="Draw movements, liability, revenue or sales into this file too."),
]
SvgSize = Annotated[
    str,
    typer.Option(
        metavar="WIDTHxHEIGHT", help="How large the picture is, in pixels: 200 to 10000 each."
    ),
]


def report(  # noqa: PLR0913  its options
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
    svg: Svg = None,
    svg_size: SvgSize = "960x384",
    with_balance: Annotated[
        bool, typer.Option("--with-balance", help="Of users: only who has credits.")
    ] = False,
    with_debt: Annotated[
        bool, typer.Option("--with-debt", help="Of users: only who owes credits.")
    ] = False,
    idle_since: Annotated[
        str | None,
        typer.Option(help="Of users: only who has done nothing since this instant."),
    ] = None,
    test_money: Annotated[
        bool,
        typer.Option(
            "--test-money",
            help="Of liability, revenue and journal: value credits in what was paid in Stripe's "
            "test mode, not in real money.",
        ),
    ] = False,
    bom: Annotated[
        bool, typer.Option("--bom", help="Begin CSV with the mark that tells Excel it is UTF-8.")
    ] = False,
    from_replica: FromReplica = False,
) -> None:
    """Report on all users: movements, liability, revenue, sales, payments, users, journal.

    The figures tie. The closing balances of `movements` are the sum of all balances as of that
    instant, and the credits of `liability`. Every run checks that. Exit code 1 means that they
    differ.

    `journal` is the whole ledger for beancount or hledger (`--format`), by entry or by day.
    """
    _check(name, format_, output, svg, bom=bom)
    size = _size(svg_size)
    from src.common.reports.catalogue import ReportName, Wanted
    from src.common.reports.periods import By
    from src.common.reports.users import UserFilter

    idle = instant("--idle-since", idle_since, time_zone)
    users = UserFilter(with_balance=with_balance, with_debt=with_debt, idle_since=idle)
    wanted = Wanted(
        name=ReportName(name),
        since=instant("--from", since, time_zone),
        until=instant("--to", until, time_zone),
        by=None if by is None else By(by),
        zone=find_zone("--time-zone", time_zone),
        test_money=test_money,
        users=None if users == UserFilter() else users,
    )
    _answer(wanted, format_, output, svg, size, bom=bom, from_replica=from_replica)


def _check(name: str, format_: str, output: Path | None, svg: Path | None, *, bom: bool) -> None:
    """Before a report is made, which may take long."""
    if bom and format_ != "csv":
        raise Invalid("--bom: goes with --format csv", "VALIDATION_ERROR")
    if name == "journal" and format_ == "table":
        raise Invalid("--format: name beancount or hledger", "VALIDATION_ERROR")
    if output is not None and format_ == "table":
        raise Invalid("--output: goes with --format csv, json or xlsx", "VALIDATION_ERROR")
    if output is not None and output == svg:
        raise Invalid("--svg: is the same file as --output", "VALIDATION_ERROR")
    if format_ == "xlsx" and output is None and is_terminal():
        raise Invalid("--format xlsx: name a file, --output FILE", "VALIDATION_ERROR")
    for option, path in (("--output", output), ("--svg", svg)):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise Invalid(f"{option}: {path} is no file that can be written", "VALIDATION_ERROR")


def _size(written: str) -> tuple[int, int]:
    """Width and height in pixels."""
    found = re.fullmatch(r"([0-9]{3,5})x([0-9]{3,5})", written)
    size = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(_SIDE_PX_MIN <= side <= _SIDE_PX_MAX for side in size):
        raise Invalid(
            f"--svg-size: two numbers of pixels from {_SIDE_PX_MIN} to {_SIDE_PX_MAX}, such as "
            "960x384",
            "VALIDATION_ERROR",
        )
    return size


def _answer(
    wanted: "Wanted",
    format_: str,
    output: Path | None,
    svg: Path | None,
    size: tuple[int, int],
    *,
    bom: bool,
    from_replica: bool,
) -> None:
    from src.common.reports.plots import Picture

    with reader_in_reach(from_replica=from_replica) as reader, ExitStack() as files:
        # What fails on the way leaves no file behind that looks like a report.
        picture = None
        if svg is not None:
            picture = Picture(files.enter_context(tempfile.TemporaryFile()), *size)
        if format_ == "table":
            _print_table(reader, wanted, picture)
        else:
            spooled = files.enter_context(tempfile.TemporaryFile())
            _write(reader, wanted, format_, spooled, picture, bom=bom)
            if output is None:
                spooled.seek(0)
                print_file(spooled)
            else:
                _save(spooled, "--output", output)
        if picture is not None and svg is not None:
            _save(picture.file, "--svg", svg)


def _save(spooled: IO[bytes], option: str, path: Path) -> None:
    try:
        _replace(path, spooled)
    except OSError as error:
        raise Invalid(
            f"{option}: {path} cannot be written ({error.strerror})", "VALIDATION_ERROR"
        ) from None


def _replace(path: Path, spooled: IO[bytes]) -> None:
    """Write all of it or nothing: a full disk leaves the file that was there before."""
    spooled.seek(0)
    path = path.resolve()  # of a link, the file that it names is replaced
    if path.exists() and not path.is_file():  # a pipe or a device
        with path.open("wb") as file:
            shutil.copyfileobj(spooled, file)
        return
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with scratch.open("xb") as file:
            shutil.copyfileobj(spooled, file)
        if path.exists():
            shutil.copymode(path, scratch)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def _write(
    reader: "Reader",
    wanted: "Wanted",
    format_: str,
    file: IO[bytes],
    svg: "Picture | None",
    *,
    bom: bool,
) -> None:
    from src.common.reports.formats import Format
    from src.common.reports.making import write_whole_report

    with _bar(wanted.name) as tell:
        made = reader.read(
            write_whole_report, wanted, Format(format_), file, bom=bom, svg=svg, tell=tell
        )
    say_who_answered(made.read_from)


def _print_table(reader: "Reader", wanted: "Wanted", svg: "Picture | None") -> None:
    """So many rows at a time, that memory is bounded however many there are."""
    from src.common.reports.making import write_whole_table

    with tempfile.TemporaryFile() as spooled:
        # No snapshot stays open, and keeps rows from being vacuumed, while somebody reads a page.
        with _bar(wanted.name) as tell:
            made = reader.read(write_whole_table, wanted, spooled, svg=svg, tell=tell)
        say_who_answered(made.read_from)
        spooled.seek(0)
        rows = map(json.loads, spooled)
        portion = list(islice(rows, _TABLE_ROWS))
        if not portion:
            say("There is nothing to report.")
        while portion:
            print_rows(portion, as_json=False, empty="")
            portion = list(islice(rows, _TABLE_ROWS))


@contextmanager
def _bar(name: str) -> "Generator[Tell]":
    """A bar on a terminal's stderr within the block; it is told of groups of users.

    Each reading of a report goes through all groups: the bar does so as often.
    """
    with progress(transient=True) as bars:
        bar = bars.add_task(name.capitalize(), total=None)

        def tell(done: int, groups: int) -> None:
            if groups > 1:
                bars.update(bar, completed=done, total=groups)

        yield tell
