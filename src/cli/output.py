"""How commands print: a table for people, one JSON document for programs.

Whatever is printed goes through here (ruff bans the rest), where others' text is made harmless.
"""

import datetime as dt
import getpass
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from src.common.printable import printable

PIPE_WIDTH = 250

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def say(text: str, *, err: bool = False) -> None:
    """Print a line, or several, on stdout or stderr."""
    typer.echo(printable(text), err=err)


def confirm(question: str) -> None:
    """Ask on stderr; whoever does not say yes ends the command."""
    typer.confirm(printable(question), abort=True, err=True)


def progress() -> Progress:
    """Bars on stderr, whose words are ours."""
    return Progress(console=Console(stderr=True))


def print_json(value: object) -> None:
    """Print one JSON document on stdout; instants in ISO 8601, ids as text."""
    text = json.dumps(value, indent=2, default=_plain)
    say(text.replace("\x7f", r"\u007f"))  # the one control character that JSON leaves


def print_record(record: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one thing, a line a field."""
    if as_json:
        print_json(dict(record))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in record.items():
        table.add_row(name, _text(value))
    _console().print(table)


def print_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool, empty: str) -> None:
    """Print several things of one kind, or the sentence `empty` where there are none."""
    if as_json:
        print_json([dict(row) for row in rows])
    elif not rows:
        say(empty)
    else:
        table = Table(box=None, pad_edge=False)
        for name in rows[0]:
            table.add_column(name, overflow="fold")  # an id cut short is no id
        for row in rows:
            table.add_row(*map(_text, row.values()))
        _console().print(table)


def utc(instant: dt.datetime | None) -> dt.datetime | None:
    """An instant that an option names; without a zone it is UTC."""
    return instant if instant is None or instant.tzinfo else instant.replace(tzinfo=dt.UTC)


def operator() -> str:
    """Who runs this command: the account of the operating system, as the journal names it."""
    try:
        account = getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container's user may have no name
        account = "unknown"
    return f"system:cli:{account}"


def _plain(value: object) -> object:
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, dt.datetime):
        return f"{value:%Y-%m-%d %H:%M:%S %Z}"
    if isinstance(value, dict):
        return printable(json.dumps(value, ensure_ascii=False, default=_plain))
    return printable(str(value))


def _console() -> Console:
    """A console that keeps a row on one line where the output goes to a file or a pipe."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, markup=False)
