"""`flashslides db adopt` and `credits import-opening-balances`: bringing a database over."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from src.cli.output import AsJson, print_json, print_record
from src.cli.reach import database_in_reach
from src.common import adoption
from src.common.credits import opening_import
from src.common.credits.opening_import import ImportReport
from src.common.database import SessionLocal, dispose_db
from src.common.database_reach import build_migration_engine
from src.common.migrations import hold_migration_lock, release_migration_lock
from src.common.settings import get_settings


def adopt() -> None:
    """Take over a database made by the document's own models; then run `db upgrade`.

    Changes no balance and loses no row; safe to kill and run again. `credits
    import-opening-balances` comes after the upgrade.
    """
    with database_in_reach(get_settings()):
        engine = build_migration_engine(get_settings())
        with engine.connect() as connection:
            hold_migration_lock(connection)
            adoption.adopt(connection, lambda step: typer.echo(step, err=True))
            release_migration_lock(connection)
    typer.echo("Adopted. Next: flashslides db upgrade, flashslides credits import-opening-balances")


def import_opening_balances(
    *,
    batch_size: Annotated[
        int, typer.Option(min=1, max=10_000, help="Users a database transaction.")
    ] = opening_import.BATCH_SIZE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Open the ledger for everybody from before it, then compare; exit 1 if anything differs.

    Runs while the service does. Safe to kill, to run again, and to run several times at once.
    """
    with database_in_reach(get_settings()):
        try:
            report = _import(batch_size, dry_run=dry_run)
        finally:
            dispose_db()
    if as_json:
        print_json({**asdict(report), "dry_run": dry_run})
    else:
        print_record(asdict(report), as_json=False)
    if report.differences:
        raise typer.Exit(1)


def _import(batch_size: int, *, dry_run: bool) -> ImportReport:
    report = ImportReport()
    with Progress(console=Console(stderr=True)) as progress:
        opening = progress.add_task("Users opened", total=None)
        for report in opening_import.import_openings(
            SessionLocal, batch_size=batch_size, dry_run=dry_run
        ):
            progress.update(opening, completed=report.opened)
        if dry_run:
            return report
        comparing = progress.add_task("Users compared", total=None)
        for _ in opening_import.compare(SessionLocal, report, batch_size=batch_size):
            progress.update(comparing, completed=report.compared + report.not_compared)
    if not report.differences:
        opening_import.forbid_negative_balances(SessionLocal)
    return report
