"""Stripe's events through the HTTP endpoint, signature to commit, beside the framework's limit.

    python -m benchmarks.webhooks          (--quick for a smoke test)

docs/benchmarks.md says how to read the figures.
"""

import datetime as dt
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import machine
from benchmarks.books import BooksDisagree, verify_everybody
from benchmarks.contestants.base import ContestantFailed, Database, Load, Spread
from benchmarks.contestants.http import HttpContestant
from benchmarks.figures import MedianOf, PerRepetition, median_of, ratios, summarise
from benchmarks.report import RESULTS, plain, write_body
from benchmarks.runner import Measurement, Runner, Turn
from benchmarks.seed import build_ledger
from benchmarks.server import (
    QUICK_SERVER_SETTINGS,
    SERVER_SETTINGS,
    UnusableFolder,
    connect,
    refuse_volatile,
    temporary_server,
)
from src.common.settings import get_settings
from src.local_postgres import LocalPostgresError

CALLERS = 32
PROCESSES = (1, 2)
_NAMES = {"webhook": "HttpWebhook", "webhook-echo": "HttpWebhookEcho"}
_EXPECTED = (BooksDisagree, ContestantFailed, LocalPostgresError, UnusableFolder)


def command(
    *,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Length of one turn.")] = 2,
    repeats: Annotated[int, typer.Option(min=1, max=100, help="Turns of each.")] = 5,
    users: Annotated[int, typer.Option(min=100, max=10_000_000, help="Users.")] = 100_000,
    quick: Annotated[
        bool, typer.Option("--quick", help="A smoke test; sizes are ignored.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Where the result goes as JSON.")
    ] = None,
    folder: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Where the data lies meanwhile.")
    ] = Path(tempfile.gettempdir()),  # noqa: B008  read once is right
) -> None:
    """Events per second through the webhook endpoint, on a durable PostgreSQL of its own."""
    if quick:
        seconds, repeats, users = 1, 1, 1_000
    started_at = dt.datetime.now(dt.UTC)
    path = json_file or RESULTS / f"webhooks-{started_at:%Y%m%dT%H%M%SZ}.json"
    try:
        described, measured = measure(seconds, repeats, users, folder, quick=quick)
    except _EXPECTED as error:
        _say(f"No figures: {error}")
        raise typer.Exit(1) from None
    for name, value in described.items():
        print(f"{name}: {value}")
    for processes in PROCESSES:
        print()
        print("\n".join(_lines(measured, processes)))
    body = {
        "command": shlex.join(["python", "-m", "benchmarks.webhooks", *sys.argv[1:]]),
        "started_at": started_at.isoformat(timespec="seconds"),
        "machine": described,
        "sizes": {"seconds": seconds, "repeats": repeats, "users": users, "quick": quick},
        "measurements": plain(measured),
        "ratios": {str(each): asdict(_ratio(measured, each)) for each in PROCESSES},
    }
    write_body(body, path)
    _say(f"Saved as {path}")


def measure(
    seconds: float, repeats: int, users: int, folder: Path, *, quick: bool
) -> tuple[dict[str, str], list[Measurement]]:
    """The machine, and what each contestant reached, with the books agreeing after every turn.

    Raises:
        BooksDisagree: if the endpoint did not write what it acknowledged.
        ContestantFailed: if a process ended without a result.
        LocalPostgresError: if the server cannot be started.
        UnusableFolder: if the data would not lie on a disk.
    """
    if not quick:
        refuse_volatile(folder)
    wishes = QUICK_SERVER_SETTINGS if quick else SERVER_SETTINGS
    with temporary_server(folder, wishes, _say) as server:
        get_settings.cache_clear()
        described = machine.describe(folder, server.version)
        _say(f"Building the schema and {users} users")
        build_ledger(server.connection, users)
        with connect(server.connection) as admin:
            runner = Runner({Database.LEDGER: admin}, server.pid, _say)
            measured = runner.run([_group(users, seconds, each) for each in PROCESSES], repeats)
            verified = verify_everybody()
    return described | {"verified": f"{verified} users"}, measured


def _group(users: int, seconds: float, processes: int) -> list[Turn]:
    load = Load(Spread.UNIFORM, users, CALLERS, seconds, processes)
    return [
        Turn(
            HttpContestant(
                name, f"benchmarks.calls.webhooks:{calls}", "", writes=name == "webhook"
            ),
            load,
        )
        for name, calls in _NAMES.items()
    ]


def _lines(measured: Sequence[Measurement], processes: int) -> list[str]:
    """What one number of server processes came to."""
    figures = _figures(measured, processes)
    lines = [
        f"{processes} server {'process' if processes == 1 else 'processes'}, {CALLERS} callers"
    ]
    for name, ours in figures.items():
        summary = summarise(ours)
        rate = summary.operations_per_second
        lines.append(
            f"  {name}: {rate.median:,.0f} ({rate.least:,.0f} to {rate.greatest:,.0f}) a second, "
            f"p50 {summary.p50_ms:.1f} ms, p99 {summary.p99_ms:.1f} ms; CPU in µs: application "
            f"{summary.application_cpu_us:,.0f}, PostgreSQL {summary.server_cpu_us:,.0f}, client "
            f"{summary.client_cpu_us:,.0f}; others {summary.other_cores:.1f} cores"
        )
    ratio = _ratio(measured, processes)
    lines.append(
        f"  webhook / webhook-echo: {ratio.median:.3f} ({ratio.least:.3f} to {ratio.greatest:.3f})"
    )
    failures = [dict(each.failures) for each in measured if each.failures]
    return [*lines, *(f"  refused: {each}" for each in failures)]


def _figures(measured: Sequence[Measurement], processes: int) -> dict[str, list[PerRepetition]]:
    """By contestant, one a repetition."""
    return {
        name: [
            each.figures
            for each in measured
            if (each.contestant, each.load.processes) == (name, processes)
        ]
        for name in _NAMES
    }


def _ratio(measured: Sequence[Measurement], processes: int) -> MedianOf:
    """What of the framework's own limit is left, within each repetition."""
    ours, echo = (
        [each.operations_per_second for each in found]
        for found in _figures(measured, processes).values()
    )
    return median_of(ratios(ours, echo))


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(command)
