"""How commands print: a table for people, one JSON document for programs.

Whatever is printed goes through here (ruff bans the rest), where others' text is made harmless.
"""

import datetime as dt
import json
import os
import pwd
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Annotated, Any, cast

import typer

from src.cli.layout import lay_out_record, lay_out_rows
from src.common.printable import printable

if TYPE_CHECKING:
    from rich.progress import Progress

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def say(text: str, *, err: bool = False) -> None:
    """Print a line, or several, on stdout or stderr."""
    typer.echo(printable(text), err=err)


def say_marked(mark: str, colour: str, text: str) -> None:
    """Print lines that begin with a word, which a terminal shows in colour (not with NO_COLOR)."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        mark = typer.style(mark, fg=colour, bold=True)
    typer.echo(mark + printable(text))


def confirm(question: str) -> None:
    """Ask on stderr; whoever does not say yes ends the command."""
    try:
        typer.confirm(printable(question), abort=True, err=True)
    except typer.Abort as abort:
        if isinstance(abort.__context__, KeyboardInterrupt):  # typer takes it for a no
            say("", err=True)
            raise KeyboardInterrupt from None
        raise


def progress(*, transient: bool = False) -> "Progress":
    """Bars on stderr, whose words are ours; transient ones vanish, and in a pipe there are none."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    silent = transient and not console.is_terminal
    return Progress(console=console, transient=transient, disable=silent)


def print_json(value: object) -> None:
    """Print one JSON document on stdout; instants in ISO 8601 and UTC, ids as text."""
    text = json.dumps(value, indent=2, default=_plain)
    say(text.replace("\x7f", r"\u007f"))  # the one control character that JSON leaves


def print_json_line(value: object) -> None:
    """Print one JSON document as a line on stdout, at once, for whoever reads line by line."""
    text = json.dumps(value, default=_plain)
    say(text.replace("\x7f", r"\u007f"))
    sys.stdout.flush()


def print_record(record: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one thing, a line a field."""
    if as_json:
        print_json(dict(record))
    else:
        _print_lines(lay_out_record(_texts(record), width()))


def print_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool, empty: str) -> None:
    """Print several things of one kind, or the sentence `empty` where there are none."""
    if as_json:
        print_json([dict(row) for row in rows])
    elif not rows:
        say(empty)
    else:
        _print_lines(lay_out_rows(list(map(_texts, rows)), width()))


def print_file(file: IO[bytes]) -> None:
    """Print what a file has on stdout; what a terminal would act on is made harmless there."""
    if is_terminal():
        for line in file:
            typer.echo(printable(line.decode().replace("\r\n", "\n")), nl=False)
    else:
        shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.flush()


def is_terminal() -> bool:
    """Whether stdout is one."""
    return sys.stdout.isatty()


def operator() -> str:
    """Who runs this command: the account of the operating system, as the journal names it.

    It is the process's own: variables that name another account are not asked.
    """
    try:
        account = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user may have no name
        account = "unknown"
    return f"system:cli:{account}"


def _plain(value: object) -> object:
    import msgspec

    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    return str(value)


def _texts(record: Mapping[str, Any]) -> dict[str, str]:
    return {name: _text(value) for name, value in record.items()}


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, dt.datetime):
        return f"{value.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, list):
        return ", ".join(map(_text, cast("list[object]", value)))
    if isinstance(value, dict):
        return printable(json.dumps(value, ensure_ascii=False, default=_plain))
    return printable(str(value))


def _print_lines(lines: Sequence[str]) -> None:
    say("\n".join(lines))


def width() -> int | None:
    """The terminal's; None where the output goes to a file or a pipe."""
    return shutil.get_terminal_size().columns if is_terminal() else None
