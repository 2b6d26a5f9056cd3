"""`flashslides db upgrade|downgrade|current|history|check`: Alembic, wherever one stands."""

import sys
import traceback
from argparse import Namespace
from typing import TYPE_CHECKING, Annotated

import typer

from src.cli import exit_codes
from src.cli.output import say
from src.cli.reach import database_in_reach, get_settings, migrated_database, refuse_newer_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from alembic.config import Config
    from sqlalchemy.exc import DBAPIError

Revision = Annotated[str, typer.Argument(help="A revision, `head`, `base`, or a step like `-1`.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the `db` group."""
    app.command("upgrade")(upgrade)
    app.command("downgrade", context_settings={"ignore_unknown_options": True})(downgrade)
    app.command("current")(current)
    app.command("history")(history)
    app.command("check")(check)


def upgrade(revision: Revision = "head") -> None:
    """Bring the database to a revision, by default the newest."""
    from alembic import command

    _run_on_database(lambda config: command.upgrade(config, revision))


def downgrade(
    revision: Revision,
    *,
    allow_data_loss: Annotated[
        bool,
        typer.Option("--allow-data-loss", help="Downgrade even if that loses data."),
    ] = False,
) -> None:
    """Take the database back to an older revision.

    If a step fails, nothing is changed. If a step would lose data of people, payments or the
    ledger, the command refuses.
    """
    from alembic import command

    options = ["allow-data-loss=true"] if allow_data_loss else []
    _run_on_database(lambda config: command.downgrade(config, revision), *options)


def current() -> None:
    """Print the revision the database is at."""
    from alembic import command

    _run_on_database(command.current)


def history() -> None:
    """Print all revisions, newest first."""
    from alembic import command

    _run(command.history)


def check() -> None:
    """Compare the models with the database. Fail if a migration is missing."""
    from alembic import command

    with migrated_database(get_settings()):
        refuse_newer_schema()
        _run(command.check)


def _run_on_database(alembic_command: "Callable[[Config], None]", *x_options: str) -> None:
    with database_in_reach(get_settings()):
        refuse_newer_schema()
        _run(alembic_command, *x_options)


def _run(alembic_command: "Callable[[Config], None]", *x_options: str) -> None:
    from alembic.script.revision import RevisionError
    from alembic.util import CommandError
    from sqlalchemy.exc import DBAPIError

    from src.common.postgres.conditions import is_not_there
    from src.common.postgres.kept_errors import keep
    from src.common.postgres.migrations import HOW_TO_ALLOW_DATA_LOSS, alembic_config

    config = alembic_config()
    config.cmd_opts = Namespace(x=list(x_options))
    config.attributes[HOW_TO_ALLOW_DATA_LOSS] = "flashslides db downgrade … --allow-data-loss"
    config.stdout = sys.stdout  # noqa: TID251  what Alembic tells is of our own files
    try:
        alembic_command(config)
    except CommandError as error:
        say(f"flashslides: {error}", err=True)
        is_wrong_use = isinstance(error.__cause__, RevisionError)  # it names no revision of ours
        raise typer.Exit(exit_codes.WRONG_USE if is_wrong_use else exit_codes.FAILED) from None
    except DBAPIError as error:
        if not is_not_there(error):
            raise
        # No revision is to blame here: this is what was to bring the database to another.
        reason = keep(error)
        failed = f"{_migration_of(error)}: {reason.error_type}: {reason.message}"
        say(f"flashslides: {failed}", err=True)
        raise typer.Exit(exit_codes.FAILED) from None


def _migration_of(error: "DBAPIError") -> str:
    """Which migration raised it."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if {"revision", "down_revision"} <= frame.f_globals.keys():
            return f"Migration {frame.f_globals['revision']} failed"
    return "The migrations failed"
