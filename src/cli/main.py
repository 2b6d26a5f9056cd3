"""The command `flashslides`: its groups of commands, and how errors leave it.

Exit codes: 0 done; 1 failed; 2 wrong use or bad input; 3 not found; 4 refused as things stand; 75
try again later (EX_TEMPFAIL); 78 wrong configuration (EX_CONFIG). Results go to stdout, everything
else to stderr.
"""

import sys
import threading
import traceback
from typing import Annotated

import typer

from src.cli import (
    adoption,
    api_keys,
    bench,
    db_migrations,
    db_roles,
    db_server,
    holds,
    purchases,
    serve,
    stripe,
    users,
    worker,
)
from src.cli.credits import app as credits_app
from src.cli.output import say
from src.cli.usage import Commands
from src.cli.verify import verify
from src.common.exceptions import ErrorKind, ExceptionWithErrorType, SettingsError
from src.common.observability import configure_logging
from src.common.settings import get_settings
from src.local_postgres import LocalPostgresError

EXIT_CODE_BY_KIND = {
    ErrorKind.INVALID: 2,
    ErrorKind.BAD_REQUEST: 2,
    ErrorKind.NOT_FOUND: 3,
    ErrorKind.CONFLICT: 4,
    ErrorKind.PAYMENT_REQUIRED: 4,
    ErrorKind.BAD_GATEWAY: 75,
    ErrorKind.UNAVAILABLE: 75,
    ErrorKind.MISCONFIGURED: 78,
}

app = typer.Typer(
    name="flashslides",
    help="Users, Stripe purchases and prepaid credits on PostgreSQL.",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # main() prints them, without what others wrote acting on it
)
db = typer.Typer(help="The database: the embedded server and the migrations.", no_args_is_help=True)
db_server.register(db)
db_migrations.register(db)
db_roles.register(db)
db.command("adopt")(adoption.adopt)
credits_app.command("import-opening-balances")(adoption.import_opening_balances)
app.add_typer(db, name="db")
app.add_typer(users.app, name="user")
app.add_typer(api_keys.app, name="api-key")
credits_app.add_typer(holds.app, name="holds")
app.add_typer(credits_app, name="credits")
app.add_typer(purchases.app, name="purchases")
app.add_typer(stripe.app, name="stripe")
app.command(
    "bench",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)(bench.bench)
app.command("serve")(serve.serve)
app.command("verify")(verify)
app.command("worker")(worker.worker)


def _print_version(wanted: bool) -> None:  # noqa: FBT001  typer's callback protocol
    if wanted:
        from importlib.metadata import version

        say(version("flashslides"))
        raise typer.Exit


@app.callback()
def configure(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Users, Stripe purchases and prepaid credits on PostgreSQL."""
    configure_logging(get_settings())


def main() -> None:
    """Run the command; an expected error becomes one sentence and an exit code."""
    threading.excepthook = _report_thread
    try:
        app()
    except LocalPostgresError as error:
        _fail(str(error), 1)
    except SettingsError as error:
        _fail(f"Settings: {error.message}", EXIT_CODE_BY_KIND[error.kind])
    except ExceptionWithErrorType as error:
        _fail(f"{error.message} ({error.error_type})", EXIT_CODE_BY_KIND.get(error.kind, 1))
    except Exception:  # noqa: BLE001  the edge: as Python would print it, but printable
        say(traceback.format_exc(), err=True)
        sys.exit(1)


def _report_thread(ended: threading.ExceptHookArgs) -> None:
    lines = traceback.format_exception(ended.exc_type, ended.exc_value, ended.exc_traceback)
    say("".join(lines), err=True)


def _fail(sentence: str, exit_code: int) -> None:
    say(f"flashslides: {sentence}", err=True)
    sys.exit(exit_code)
