"""A command's way to the database: the configured one, or the embedded server while it runs."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

import typer
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from src.common.database import dispose_db, run_in_database_transaction
from src.common.database_errors import sqlstate_of
from src.common.exceptions import SettingsError
from src.common.settings import Settings
from src.local_postgres import RunningServer, running_server

T = TypeVar("T")

_UNDEFINED_TABLE = "42P01"
_UNDEFINED_COLUMN = "42703"


@contextmanager
def database_in_reach(settings: Settings) -> Generator[RunningServer | None]:
    """Keep a database in reach for the block: the embedded one where `DATABASE_HOST` is not set.

    Yields the embedded server, or None where another database is configured.

    Raises:
        SettingsError: ENV is not `local` and no database is configured.
        LocalPostgresError: the embedded server cannot run.
    """
    if settings.database_host is not None:
        yield None
        return
    if not settings.is_local:
        raise SettingsError(
            f"DATABASE_HOST: required where ENV is {settings.env}; "
            "the embedded server is for ENV=local"
        )
    with running_server(on_progress=lambda line: typer.echo(line, err=True)) as server:
        yield server


def run_operation(settings: Settings, work: Callable[[Session], T]) -> T:
    """Run one operation in one database transaction, wherever the settings' database is.

    Raises:
        SettingsError: the database has no schema, or an older one than this release needs.
    """
    with database_in_reach(settings):
        try:
            return run_in_database_transaction(work)
        except ProgrammingError as error:
            if sqlstate_of(error) not in (_UNDEFINED_TABLE, _UNDEFINED_COLUMN):
                raise
            raise SettingsError(
                "The database lacks what this release expects: run `flashslides db upgrade`"
            ) from None
        finally:
            dispose_db()
