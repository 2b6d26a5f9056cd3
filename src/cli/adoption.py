"""`flashslides db adopt` and `credits import-opening-balances`: bringing a database over."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from src.cli.choices import OPENINGS_BATCH_SIZE
from src.cli.output import AsJson, print_json, print_record, print_rows, progress, say
from src.cli.reach import database_in_reach, get_settings, migrated_database
from src.cli.whose import sessions_of_all

if TYPE_CHECKING:
    from src.common.credits.opening.opening_import import ImportReport


def adopt() -> None:
    """Take over a database that the architecture document's own models made.

    No balance changes and no row is lost. You may kill this command and run it again.

    Afterwards run `db upgrade`, and then `credits import-opening-balances`.
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
        int,
        typer.Option(
            min=1, max=10_000, help="How many users are written in one database transaction."
        ),
    ] = OPENINGS_BATCH_SIZE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the opening entries of users from before the ledger, then compare their balances.

    The service may run meanwhile. You may kill this command, run it again, and run it several times
    at once.

    Exit code 1 means that a balance differs, or that a user's entry could not be written. Such
    users are named. The next run tries them again.
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

    report = opening_import.ImportReport()
    everybody = sessions_of_all()
    with progress() as bars:
        opening = bars.add_task("Users opened", total=None)
        for sessions in everybody:
            for _ in opening_import.import_openings(
                sessions, batch_size=batch_size, dry_run=dry_run, report=report
            ):
                bars.update(opening, completed=report.opened)
        if dry_run:
            return report
        comparing = bars.add_task("Users compared", total=None)
        for sessions in everybody:
            for _ in opening_import.compare(sessions, report, batch_size=batch_size):
                bars.update(comparing, completed=report.compared + report.not_compared)
    if not report.differences and not report.not_opened:
        for sessions in everybody:
            opening_import.forbid_negative_balances(sessions)
    return report


def _print(report: "ImportReport") -> None:
    record = asdict(report)
    not_opened = record.pop("first_not_opened")
    print_record(record, as_json=False)
    if not_opened:
        say("\nUsers who could not be opened; mend what is said, then run it again:")
        print_rows(not_opened, as_json=False, empty="")
