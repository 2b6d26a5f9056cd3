"""`flashslides doctor`: what is wrong, why it matters, and what to do next."""

from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from src.cli import exit_codes, output
from src.cli.layout import lay_out_paragraph
from src.cli.output import AsJson, print_json, print_rows, say, say_marked
from src.cli.replicas import FromReplica, answered_by, require_replica, say_who_answered

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from src.common.doctor.checks import Check
    from src.common.doctor.context import Context
    from src.common.doctor.examination import Examined

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "unknown": "magenta", "skipped": "cyan"}
_INDENT = len("skipped ")
_DEEPER = _INDENT + len("next: ")
_COMMANDS = ("flashslides ", "alembic ")


def doctor(
    *,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Run these checks only. Default: all."),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit code 1 where a check warns, or could not look."),
    ] = False,
    list_only: Annotated[
        bool, typer.Option("--list", help="List the checks and run none.")
    ] = False,
    api_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where the API answers, for `engine-queue`. Default with ENV=local, or where "
            "API_PORT is set: that port of this machine.",
        ),
    ] = None,
    from_replica: FromReplica = False,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong, why it matters, and what to do next.

    Each check is `ok`, `warn` or `fail`. It is `unknown` where it could not look, as when the
    database is down. It is `skipped` where there is nothing of the kind to look at. Nothing is
    changed. No value of a setting and no text of a query is shown.

    Exit code 2 means that a check fails. With --strict, 1 means that one warns or is unknown.
    """
    from src.common.doctor.catalogue import named
    from src.common.doctor.checks import Status
    from src.common.doctor.context import Context
    from src.common.doctor.examination import worst

    checks = named(names or [])
    if list_only:
        rows = [{"name": each.name, "looks_at": each.looks_at, "why": each.why} for each in checks]
        print_rows(rows, as_json=as_json, empty="")
        return
    context = Context(api_url, from_replica=from_replica)
    examined = _examine(checks, context, from_replica=from_replica)
    found = list(examined) if as_json else _print_all(examined)
    status = worst(found)
    if as_json:
        told = answered_by(context.read_from)
        print_json({"status": status, "checks": [asdict(each) for each in found], **told})
    if status is Status.FAIL:
        raise typer.Exit(exit_codes.CHECK_FAILS)
    if strict and status is not Status.OK:
        raise typer.Exit(exit_codes.FAILED)


def _examine(
    checks: "Sequence[Check]", context: "Context", *, from_replica: bool
) -> "Iterator[Examined]":
    from src.common.doctor.examination import examine
    from src.common.exceptions import SettingsError
    from src.common.observability import configure_logging

    with suppress(SettingsError):  # a check says so
        configure_logging(context.settings)
    try:
        if from_replica:
            require_replica(context.settings)
            say_who_answered(context.read_from)
        yield from examine(checks, context)
    finally:
        context.close()


def _print_all(examined: "Iterator[Examined]") -> "list[Examined]":
    """Each answer as it comes; last the checks that did not begin, one entry a reason."""
    from src.common.doctor.checks import Status

    found: list[Examined] = []
    waiting: dict[str, list[Examined]] = {}
    for each in examined:
        found.append(each)
        if each.not_looked_at_because is None:
            _print(each)
        else:
            waiting.setdefault(each.not_looked_at_because, []).append(each)
    for why, several in waiting.items():
        _print(several[0]) if len(several) == 1 else _print_not_looked_at(why, several)
    if len(found) > 1:
        counted = Counter(each.status for each in found)
        say(", ".join(f"{counted[status]} {status}" for status in Status if counted[status]))
    return found


def _print_not_looked_at(why: str, examined: "Sequence[Examined]") -> None:
    names = ", ".join(each.name for each in examined)
    said = f"{len(examined)} checks not looked at, {why}: {names}."
    _print_paragraphs(examined[0].status, said, None, examined[0].next)


def _print(examined: "Examined") -> None:
    """A paragraph for what was seen, and where there is something to do, one for why and next."""
    from src.common.doctor.checks import Status

    why = examined.why if examined.status in {Status.WARN, Status.FAIL} else None
    said = f"{examined.name}: {examined.seen}"
    _print_paragraphs(examined.status, said, why, examined.next)


def _print_paragraphs(status: str, said: str, why: str | None, next_step: str | None) -> None:
    columns = output.width()
    lines = [lay_out_paragraph(said, columns, _INDENT)]
    if why is not None:
        lines.append(f"why:  {lay_out_paragraph(why, columns, _DEEPER)}")
    if next_step is not None:
        continued = " \\" if next_step.startswith(_COMMANDS) else ""
        step = lay_out_paragraph(next_step, columns, _DEEPER, continued=continued)
        lines.append(f"next: {step}")
    say_marked(f"{status:<{_INDENT}}", _COLOURS[status], f"\n{' ' * _INDENT}".join(lines))
