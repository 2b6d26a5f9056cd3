"""`flashslides db adopt` and `credits import-opening-balances`: bringing a database over."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from src.cli.choices import OPENINGS_BATCH_SIZE
from src.cli.output import AsJson, print_json, print_record, print_rows, progress, say
from src.cli.reach import database_in_reach, get_settings, migrated_database

if TYPE_CHECKING:
    from src.common.credits.opening.opening_import import ImportReport


def adopt() -> None:
    """Take over a database made by the document's own models; then run `db upgrade`.

    Changes no balance and loses no row; safe to kill and run again. `credits
    import-opening-balances` comes after the upgrade.
    """
    from src.common.postgres import adoption
    from src.common.postgres.migrations import hold_migration_lock, release_migration_lock
    from src.common.postgres.reach import build_migration_engine

    with database_in_reach(get_settings()):
        engine = build_migration_engine(get_settings())
        with engine.connect() as connection:
            hold_migration_lock(connection)
            adoption.adopt(connection, lambda step: say(step, err=True))
            release_migration_lock(connection)
    say("Adopted. Next: flashslides db upgrade, flashslides credits import-opening-balances")


def import_opening_balances(
    *,
    batch_size: Annotated[
        int, typer.Option(min=1, max=10_000, help="Users a database transaction.")
    ] = OPENINGS_BATCH_SIZE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Open the ledger for everybody from before it, then compare.

    Runs while the service does. Safe to kill, to run again, and to run several times at once. Exit
    code 1 where anything differs, or where somebody could not be opened: they are named, and the
    next run tries them again.
    """
    with migrated_database(get_settings()):
        report = _import(batch_size, dry_run=dry_run)
    if as_json:
        print_json({**asdict(report), "dry_run": dry_run})
    else:
        _print(report)
    if report.differences or report.not_opened:
        raise typer.Exit(1)


def _import(batch_size: int, *, dry_run: bool) -> "ImportReport":
    from src.common.credits.opening import opening_import
    from src.common.database import SessionLocal

    report = opening_import.ImportReport()
    with progress() as bars:
        opening = bars.add_task("Users opened", total=None)
        for report in opening_import.import_openings(
            SessionLocal, batch_size=batch_size, dry_run=dry_run
        ):
            bars.update(opening, completed=report.opened)
        if dry_run:
            return report
        comparing = bars.add_task("Users compared", total=None)
        for _ in opening_import.compare(SessionLocal, report, batch_size=batch_size):
            bars.update(comparing, completed=report.compared + report.not_compared)
    if not report.differences and not report.not_opened:
        opening_import.forbid_negative_balances(SessionLocal)
    return report


def _print(report: "ImportReport") -> None:
    record = asdict(report)
    not_opened = record.pop("first_not_opened")
    print_record(record, as_json=False)
    if not_opened:
        say("\nUsers who could not be opened; mend what is said, then run it again:")
        print_rows(not_opened, as_json=False, empty="")
