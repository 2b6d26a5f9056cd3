"""The document's async credit update against pgbench, which writes the same rows.

Run it from the repository's root: `python -m benchmarks.credit_update`. docs/benchmarks.md says how
to read the figures.
"""

import datetime as dt
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from benchmarks import books, machine, report, seed
from benchmarks.contestants.base import Contestant, ContestantFailed
from benchmarks.contestants.document_pattern import DocumentPattern
from benchmarks.contestants.pgbench import Pgbench, script
from benchmarks.runner import Plan, Runner
from benchmarks.server import (
    DURABLE,
    QUICK_SERVER_SETTINGS,
    SERVER_SETTINGS,
    UnusableFolder,
    connect,
    refuse_volatile,
    shown_settings,
    temporary_server,
)
from src.common.settings import get_settings
from src.local_postgres import LocalPostgresError, RunningServer

QUICK = Plan(clients=(8,), seconds=1, repeats=1, user_count=1_000)
_RESULTS = Path(__file__).resolve().parent / "results"
_EXPECTED = (
    books.BooksDisagree,
    ContestantFailed,
    LocalPostgresError,
    UnusableFolder,
)

Choose = Callable[[RunningServer], Sequence[Contestant]]


def contestants_of(server: RunningServer) -> Sequence[Contestant]:
    """Return who takes part; the first is what the others are compared with."""
    pgbench = Pgbench(server.bin_dir / "pgbench", server.connection, get_settings())
    return pgbench, DocumentPattern()


def main(choose: Choose = contestants_of) -> None:
    """Run the command line; `choose` names the contestants."""

    def command(
        *,
        seconds: Annotated[int, typer.Option(min=1, max=600, help="Length of one turn.")] = 5,
        repeats: Annotated[int, typer.Option(min=1, max=100, help="Turns of each.")] = 5,
        clients: Annotated[str, typer.Option(help="Concurrent clients.")] = "1,8,32",
        users: Annotated[int, typer.Option(min=1, max=10_000_000, help="Users.")] = 100_000,
        quick: Annotated[
            bool, typer.Option("--quick", help="A smoke test of seconds; other sizes are ignored.")
        ] = False,
        json_file: Annotated[
            Path | None, typer.Option("--json", help="Where the result goes as JSON.")
        ] = None,
        folder: Annotated[
            Path, typer.Option(exists=True, file_okay=False, help="Where the data lies meanwhile.")
        ] = Path(tempfile.gettempdir()),  # noqa: B008  read once is right
    ) -> None:
        """Compare the document's async credit update with pgbench, which writes the same rows.

        Starts a durable PostgreSQL of its own and removes it. Takes about
        2 x 2 x CLIENTS x SECONDS x REPEATS; progress on stderr, figures on stdout.
        """
        plan = QUICK if quick else Plan(_counts(clients), seconds, repeats, users)
        path = (
            json_file or _RESULTS / f"credit_update-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}.json"
        )
        signal.signal(signal.SIGTERM, _leave_in_order)
        try:
            result = measure(plan, choose, folder, is_smoke_test=quick)
        except _EXPECTED as error:
            _say(f"No figures: {error}")
            raise typer.Exit(1) from None
        report.print_result(result)
        report.write_json(result, path)
        _say(f"Saved as {path}")

    typer.run(command)


def measure(plan: Plan, choose: Choose, folder: Path, *, is_smoke_test: bool) -> report.Result:
    """Start the server, fill it, let the contestants run, and gather what the report needs.

    Raises:
        BooksDisagree: if a contestant did not write what it acknowledged.
        ContestantFailed: if one ended without a result.
        LocalPostgresError: if the server cannot be started.
        UnusableFolder: if the data would not lie on a disk.
    """
    started_at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    if not is_smoke_test:
        refuse_volatile(folder)
    wishes = QUICK_SERVER_SETTINGS if is_smoke_test else SERVER_SETTINGS
    with temporary_server(folder, wishes, _say) as server:
        described = machine.describe(folder, server.version)
        shown = shown_settings(server.connection)
        _refuse_unless_durable(shown)
        _say(f"Building the schema and {plan.user_count} users")
        seed.build(server.connection, plan.user_count)
        contestants = choose(server)
        with connect(server.connection) as admin:
            runner = Runner(admin, server.pid, _say)
            measurements = runner.run(plan, contestants)
            final = asdict(books.read_books(admin)) | {"acknowledged": runner.acknowledged}
    settings = get_settings()
    return report.Result(
        title="Credit update: the document's async pattern against pgbench, same rows",
        command=shlex.join(["python", "-m", "benchmarks.credit_update", *sys.argv[1:]]),
        started_at=started_at,
        machine=described,
        server_settings=shown,
        pool=f"{settings.database_async_pool_size} + {settings.database_async_max_overflow}",
        reference_script=script(),
        plan=plan,
        reference=contestants[0].name,
        measurements=measurements,
        books=final,
        is_smoke_test=is_smoke_test,
    )


def _refuse_unless_durable(shown: dict[str, str]) -> None:
    for name in DURABLE:
        if shown[name] != "on":
            raise ContestantFailed(f"The server runs with {name}={shown[name]}, not durably.")


def _counts(text: str) -> tuple[int, ...]:
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = ()
    if not counts or min(counts) < 1 or len(set(counts)) < len(counts):
        raise typer.BadParameter(
            "name different numbers from 1, as in 1,8,32", param_hint="--clients"
        )
    return counts


def _leave_in_order(number: int, _frame: FrameType | None) -> None:
    """Turn the signal into an exception, so that the server is stopped and removed."""
    sys.exit(128 + number)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
