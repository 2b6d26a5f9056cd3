"""Spending credits, side by side: pgbench, the document's pattern, our ledger, peers, HTTP.

    python -m benchmarks          (or: flashslides bench)

docs/benchmarks.md says how to read the figures.
"""

import datetime as dt
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import psycopg
import typer
from sqlalchemy import URL
from sqlalchemy.orm import Session

from benchmarks import books, machine, report
from benchmarks.checkouts import Checkout, NotBuilt, built
from benchmarks.contestants.base import Clocks, Contestant, ContestantFailed, Database, Load, Spread
from benchmarks.contestants.processes import PythonContestant
from benchmarks.growth import Growth, GrowthPlan, measure_growth
from benchmarks.output import tell
from benchmarks.plan import (
    DESCRIPTIONS,
    PEER_USERS,
    PEERS,
    Sizes,
    contestants_of,
    groups_of,
    installed_peers,
    with_twins,
)
from benchmarks.runner import Runner, WindowClocks
from benchmarks.seed import build_document, build_ledger
from benchmarks.server import (
    DURABLE,
    QUICK_SERVER_SETTINGS,
    SERVER_SETTINGS,
    UnusableFolder,
    connect,
    create_database,
    refuse_volatile,
    shown_settings,
    temporary_server,
)
from src.common.accounts import api_keys
from src.common.database import dispose_db, run_in_database_transaction
from src.common.postgres.engines import SYNC_DRIVER
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters, LocalPostgresError, RunningServer

QUICK = Sizes(seconds=1, repeats=1, users=1_000, quick=True)
_EXPECTED = (books.BooksDisagree, ContestantFailed, LocalPostgresError, NotBuilt, UnusableFolder)
_GROWTH_ROWS = {
    "none": (),
    "default": (100_000, 1_000_000),
    "full": (100_000, 1_000_000, 10_000_000),
}
_ENGINE_MODULE = "src.common.credits.engine.engine"
_CROSSING = """
    SELECT count(*) FILTER (WHERE lots > 1)::float / greatest(count(*), 1)
    FROM (SELECT count(*) AS lots FROM credit_postings JOIN credit_entries USING (user_id, seq)
          WHERE kind = 'spend' AND idempotency_key NOT LIKE 'seed:%'
          GROUP BY user_id, seq) AS spends
"""
Replace = Callable[[dict[str, Contestant]], dict[str, Contestant]]


def main(replace: Replace = lambda everybody: everybody) -> None:
    """Run the command line; a test replaces contestants by false ones."""

    def command(  # noqa: PLR0913  a command has the options it has
        *,
        seconds: Annotated[float, typer.Option(min=1, max=600, help="Length of one turn.")] = 2,
        repeats: Annotated[int, typer.Option(min=1, max=100, help="Turns of each.")] = 5,
        users: Annotated[int, typer.Option(min=100, max=10_000_000, help="Users.")] = 100_000,
        only: Annotated[
            str,
            typer.Option(
                help=f"Contestants, separated by commas, of: {', '.join(DESCRIPTIONS)}; or how "
                "names of several begin, as start-up."
            ),
        ] = "",
        against: Annotated[
            str | None,
            typer.Option(
                metavar="REV", help="A git revision, whose code takes turns with this one's."
            ),
        ] = None,
        growth: Annotated[
            str,
            typer.Option(help="How far the ledger grows: none, default (10⁶ rows), full (10⁷)."),
        ] = "default",
        quick: Annotated[
            bool, typer.Option("--quick", help="A smoke test of a minute; sizes are ignored.")
        ] = False,
        check: Annotated[
            bool, typer.Option("--check", help="Exit with 1 where a required figure is missed.")
        ] = False,
        json_file: Annotated[
            Path | None, typer.Option("--json", help="Where the result goes as JSON.")
        ] = None,
        svg: Annotated[
            Path | None, typer.Option(help="A folder for the curves; none are drawn without.")
        ] = None,
        folder: Annotated[
            Path, typer.Option(exists=True, file_okay=False, help="Where the data lies meanwhile.")
        ] = Path(tempfile.gettempdir()),  # noqa: B008  read once is right
    ) -> None:
        """Compare ways to spend credits on a durable PostgreSQL of its own.

        Some 25 minutes; progress on stderr, figures on stdout.
        """
        sizes = QUICK if quick else Sizes(seconds, repeats, users)
        names = _names(only)
        rows = _rows(growth, quick=quick)
        path = json_file or report.RESULTS / f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}.json"
        if svg is not None and find_spec("matplotlib") is None:
            raise typer.BadParameter(
                "the curves need matplotlib: uv sync --group bench", param_hint="--svg"
            )
        try:
            with built(against, folder, tell) if against else nullcontext() as other:
                result = measure(sizes, rows, folder, replace, names, other)
        except _EXPECTED as error:
            tell(f"No figures: {error}")
            raise typer.Exit(1) from None
        _tell(result, path, svg)
        for name, how in result.failed.items():
            tell(f"{name} failed, and has no figures: {how}")
        if result.failed or (check and any(line.reached is False for line in result.checked)):
            raise typer.Exit(1)

    app = typer.Typer(
        context_settings={"help_option_names": ["-h", "--help"]}, add_completion=False
    )
    app.command()(command)
    app()


def _tell(result: report.Result, path: Path, svg: Path | None) -> None:
    """Print a result, save it, and draw it where a folder is given."""
    report.print_result(result)
    report.write_json(result, path)
    tell(f"Saved as {path}")
    if svg is not None:
        from benchmarks.curves import draw

        for drawn in draw(result.measured, result.growth, svg):
            tell(f"Drawn: {drawn}")


def measure(
    sizes: Sizes,
    growth_rows: Sequence[int],
    folder: Path,
    replace: Replace,
    only: Sequence[str],
    against: Checkout | None = None,
) -> report.Result:
    """Start the server, fill it, let the contestants run, and gather what the report needs.

    Raises:
        BooksDisagree: if a contestant did not write what it acknowledged.
        ContestantFailed: if all ended without a result, or nobody can go on after one has.
        LocalPostgresError: if the server cannot be started.
        UnusableFolder: if the data would not lie on a disk.
    """
    started_at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    if not sizes.quick:
        refuse_volatile(folder)
    wishes = QUICK_SERVER_SETTINGS if sizes.quick else SERVER_SETTINGS
    with temporary_server(folder, wishes, tell) as server, ExitStack() as stack:
        described = machine.describe(folder, server.version)
        shown = shown_settings(server.connection)
        _refuse_unless_durable(shown)
        tell(f"Building the schemas and {sizes.users} users")
        build_ledger(server.connection, sizes.users)
        everybody = replace(contestants_of(server, _api_key(), quick=sizes.quick))
        absent = _leave_out_absent(everybody)
        if against is not None:
            everybody = with_twins(everybody, against)
        groups = groups_of(everybody, sizes, only)
        databases = {turn.contestant.database for group in groups for turn in group}
        admins = {
            name: stack.enter_context(connect(_prepare(server, name, sizes)))
            for name in sorted(databases | {Database.LEDGER})
        }
        runner = Runner(admins, server.pid, tell)
        measurements = runner.run(groups, sizes.repeats)
        if not measurements:
            raise ContestantFailed(
                "; ".join(f"{name}: {how}" for name, how in runner.failed.items())
            )
        done = _work_done(admins[Database.LEDGER], runner.acknowledged)
        failed = dict(runner.failed)
        try:
            growth = _growth(server, sizes, growth_rows, everybody)
        except ContestantFailed as error:
            growth, failed["growth"] = Growth(), str(error)
        loop_cpu_us = _loop_cpu_us(server)
    settings = get_settings()
    return report.Result(
        command=shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        started_at=started_at,
        machine=described,
        server_settings=shown,
        pool=f"{settings.database_async_pool_size} + {settings.database_async_max_overflow}",
        sizes=sizes,
        absent=absent,
        failed=failed,
        loop_cpu_us=loop_cpu_us,
        measurements=measurements,
        growth=growth,
        books=done,
    )


def _api_key() -> str:
    def create(session: Session) -> str:
        scopes = [api_keys.Scope.CREDITS_SPEND, api_keys.Scope.CREDITS_GRANT]
        return api_keys.create_api_key(session, service_name="benchmark", scopes=scopes).key

    key = run_in_database_transaction(create)
    dispose_db()
    return key


def _leave_out_absent(everybody: dict[str, Contestant]) -> list[str]:
    """Take out whom this checkout does not have, and say so."""
    absent = [
        f"{peer.name}: not installed (uv sync --group peers)"
        for peer in PEERS
        if peer not in installed_peers()
    ]
    if find_spec(_ENGINE_MODULE) is None:
        del everybody["engine"]
        absent.append("engine: this checkout has none")
    return absent


def _prepare(server: RunningServer, name: Database, sizes: Sizes) -> ConnectionParameters:
    """Make a contestant's database, unless it is the ledger's own."""
    if name is Database.LEDGER:
        return server.connection
    tell(f"Building the database {name}")
    connection = create_database(server.connection, name)
    if name is Database.DOCUMENT:
        build_document(connection, sizes.users)
        return connection
    [peer] = [each for each in PEERS if each.database is name]
    module = import_module(peer.calls.partition(":")[0])
    url = URL.create(
        SYNC_DRIVER,
        connection.user,
        connection.password,
        connection.host,
        connection.port,
        connection.database,
    )
    with connect(connection) as admin:
        plain = url.render_as_string(hide_password=False)
        module.prepare(admin, plain, min(sizes.users, PEER_USERS))
        admin.execute("VACUUM (ANALYZE)")
    return connection


def _work_done(admin: psycopg.Connection, acknowledged: int) -> report.Workdone:
    tell("Verifying every user")
    users = books.verify_everybody()
    row = admin.execute(_CROSSING).fetchone()
    assert row is not None  # noqa: S101  an aggregate has one row
    return report.Workdone(acknowledged, users, float(row[0]))


def _growth(
    server: RunningServer,
    sizes: Sizes,
    rows: Sequence[int],
    everybody: Mapping[str, Contestant],
) -> Growth:
    ours = everybody["engine" if "engine" in everybody else "ledger-async"]
    assert isinstance(ours, PythonContestant)  # noqa: S101  plan.py says so
    plan = GrowthPlan(rows, sizes.repeats, sizes.seconds, ours.calls)
    return measure_growth(server, plan, tell)


def _loop_cpu_us(server: RunningServer) -> float:
    """Measure the worker's own loop, with nothing to do."""
    nothing = PythonContestant("nothing", "benchmarks.calls.nothing:Nothing")
    clocks: Clocks = WindowClocks(server.pid)
    outcome = nothing.run(Load(Spread.UNIFORM, 1_000, 32, 1), clocks)
    return outcome.client_cpu_seconds / len(outcome.latencies_ms) * 1e6


def _refuse_unless_durable(shown: Mapping[str, str]) -> None:
    for name in DURABLE:
        if shown[name] != "on":
            raise ContestantFailed(f"The server runs with {name}={shown[name]}, not durably.")


def _names(text: str) -> list[str]:
    names = [each for name in text.split(",") if name.strip() for each in _called(name.strip())]
    unknown = sorted(set(names) - set(DESCRIPTIONS))
    if unknown:
        raise typer.BadParameter(
            f"nobody is called {', '.join(unknown)}; there are {', '.join(DESCRIPTIONS)}",
            param_hint="--only",
        )
    missing = sorted({peer.name for peer in PEERS if peer not in installed_peers()} & set(names))
    if missing:
        raise typer.BadParameter(
            f"{', '.join(missing)}: not installed; uv sync --group peers", param_hint="--only"
        )
    return names


def _called(name: str) -> list[str]:
    """The contestants that a name stands for; where there are none, the name itself."""
    if name in DESCRIPTIONS:
        return [name]
    return [each for each in DESCRIPTIONS if each.startswith(f"{name}-")] or [name]


def _rows(growth: str, *, quick: bool) -> Sequence[int]:
    if growth not in _GROWTH_ROWS:
        raise typer.BadParameter("none, default or full", param_hint="--growth")
    return () if quick else _GROWTH_ROWS[growth]


if __name__ == "__main__":
    main()
