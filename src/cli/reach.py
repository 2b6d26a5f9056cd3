"""A command's way to the database: the configured one, or the embedded server while it runs."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from src.cli.output import say
from src.common.database import dispose_db, run_in_database_transaction
from src.common.database_errors import sqlstate_of
from src.common.database_reach import database_in_reach as _database_in_reach
from src.common.exceptions import SettingsError
from src.common.settings import Settings
from src.common.stripe.gateway import Gateway, open_gateway
from src.common.stripe.processing import InDatabase
from src.local_postgres import RunningServer

T = TypeVar("T")

_UNDEFINED_TABLE = "42P01"
_UNDEFINED_COLUMN = "42703"


@contextmanager
def database_in_reach(settings: Settings) -> Generator[RunningServer | None]:
    """As `src.common.database_reach` does, with the embedded server's progress on stderr."""
    with _database_in_reach(settings, lambda line: say(line, err=True)) as server:
        yield server


def run_with_stripe(
    settings: Settings, work: Callable[[InDatabase, Gateway | None], Awaitable[T]]
) -> T:
    """Run what needs both the database and Stripe, wherever the settings say they are.

    Raises:
        SettingsError: as `run_operation`.
    """

    async def run() -> T:
        async with open_gateway(settings) as gateway:
            return await work(in_database, gateway)

    return _with_schema(settings, lambda: asyncio.run(run()))


async def in_database(work: Callable[[Session], T]) -> T:
    """Run work in one database transaction, holding up this thread's tasks meanwhile.

    First the others have their turn, and whoever is cancelled ends here.
    """
    await asyncio.sleep(0)
    return run_in_database_transaction(work)


def run_operation(settings: Settings, work: Callable[[Session], T]) -> T:
    """Run one operation in one database transaction, wherever the settings' database is.

    Raises:
        SettingsError: the database has no schema, or an older one than this release needs.
    """
    return _with_schema(settings, lambda: run_in_database_transaction(work))


def _with_schema(settings: Settings, work: Callable[[], T]) -> T:
    with database_in_reach(settings):
        try:
            return work()
        except ProgrammingError as error:
            if sqlstate_of(error) not in (_UNDEFINED_TABLE, _UNDEFINED_COLUMN):
                raise
            raise SettingsError(
                "The database lacks what this release expects: run `flashslides db upgrade`"
            ) from None
        finally:
            dispose_db()
