"""The command line of `flashslides`: every group of commands, under one roof.

Help and completion load the commands' own modules and no more: those name what they take, and load
what does it when they are called.
"""

from functools import cache
from typing import TYPE_CHECKING, Annotated

import typer
from typer.main import get_command

from src.cli import (
    adoption,
    anchors,
    api_keys,
    approvals,
    bench,
    console,
    db_migrations,
    db_roles,
    db_server,
    holds,
    moves,
    notices,
    purchases,
    report,
    services,
    shards,
    stripe,
    users,
)
from src.cli.chain import chain
from src.cli.credits import app as credits_app
from src.cli.doctor import doctor
from src.cli.output import say
from src.cli.usage import Commands
from src.cli.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(
    name="flashslides",
    help="Users, Stripe purchases and prepaid credits on PostgreSQL.",
    cls=Commands,
    rich_markup_mode="markdown",  # which joins the lines of a docstring's paragraph
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},  # of all commands
    pretty_exceptions_enable=False,  # main() prints them, without what others wrote acting on it
)
db = typer.Typer(help="The database: the embedded server and the migrations.", no_args_is_help=True)
db_server.register(db)
db_migrations.register(db)
db_roles.register(db)
db.command("adopt")(adoption.adopt)
db.command("chain")(chain)
moves.register(credits_app)
credits_app.command("import-opening-balances")(adoption.import_opening_balances)
app.add_typer(db, name="db")
app.add_typer(users.app, name="user")
app.add_typer(api_keys.app, name="api-key")
app.add_typer(approvals.app, name="approvals")
app.add_typer(anchors.app, name="anchors")
app.add_typer(console.app, name="console")
credits_app.add_typer(holds.app, name="holds")
app.add_typer(credits_app, name="credits")
app.add_typer(notices.app, name="notices")
app.add_typer(purchases.app, name="purchases")
app.add_typer(shards.app, name="shards")
app.add_typer(stripe.app, name="stripe")
app.command(
    "bench",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)(bench.bench)
app.command("doctor")(doctor)
app.command("report")(report.report)
app.command("serve")(services.serve)
app.command("verify")(verify)
app.command("worker")(services.worker)


def _print_version(wanted: bool) -> None:  # noqa: FBT001  typer's callback protocol
    if wanted:
        from importlib.metadata import version

        say(version("flashslides"))
        raise typer.Exit


@app.callback()
def flashslides(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Users, Stripe purchases and prepaid credits on PostgreSQL."""


@cache
def command() -> "Callable[[], None]":
    """All commands as one that reads `sys.argv`; making it takes as long as a short command."""
    return get_command(app)
