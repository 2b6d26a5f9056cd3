"""`flashslides shards copy`: into groups, or out of them, from a database in service."""

from typing import TYPE_CHECKING, Annotated

import typer

from src.cli.output import AsJson, print_json, print_record, print_rows, progress, say
from src.cli.reach import get_settings, migrated_database
from src.common.exceptions import Invalid

if TYPE_CHECKING:
    from src.common.sharding.copying.parity import Parity


def copy(
    *,
    service: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="SERVICE",
            help="The database to copy from: a service of libpq's service file. Its password is in "
            "libpq's password file.",
        ),
    ],
    cut_over: Annotated[
        bool,
        typer.Option(
            "--cut-over",
            help="Let nobody write to the source any more, copy the rest, and open this database.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Compare both databases, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy a database whose users are in no groups into groups; or back.

    The settings name the database to copy into. It is closed until the end: whoever writes there is
    refused. The source stays in service meanwhile. Whatever is new or has changed is copied, and
    what both have is compared, by a digest of every row. Repeat the command until little is left;
    one that was interrupted goes on where it stopped.

    With --cut-over the source is held while the rest is copied, and closed for good. Then start the
    service with this database's settings.

    Exit code 1 with --dry-run means that the databases differ.
    """
    if cut_over and dry_run:
        raise Invalid("Give --cut-over or --dry-run, not both", "VALIDATION_ERROR")
    settings = get_settings()
    with migrated_database(settings):
        parity = _copied(service, cut_over=cut_over, dry_run=dry_run)
    if as_json:
        print_json({**parity.record(), "is_cut_over": cut_over})
    else:
        _print(parity, cut_over=cut_over)
    if dry_run and not parity.is_same:
        raise typer.Exit(1)


def _copied(service: str, *, cut_over: bool, dry_run: bool) -> "Parity":
    from src.common.sharding.copying.copy import opened
    from src.common.sharding.copying.parity import Parity

    with progress() as bars, opened(get_settings(), service) as copying:
        with copying.source.snapshot():
            total = copying.source.count_users()
        task = bars.add_task("Users compared" if dry_run else "Users copied", total=total)
        writing = copying.cut_over if cut_over else copying.copy
        steps = copying.compare() if dry_run else writing()
        parity = Parity()
        for parity in steps:
            bars.update(task, completed=parity.users)
    return parity


def _print(parity: "Parity", *, cut_over: bool) -> None:
    record = parity.record()
    print_rows(
        [
            {name: each[name] for name in ("table", "rows_in_source", "rows_here", "is_same")}
            for each in record.pop("tables")
        ],
        as_json=False,
        empty="",
    )
    say("")
    print_record(record, as_json=False)
    if cut_over:
        say(
            "\nThis database is open, and the source is closed. Start the service with these "
            "settings."
        )
