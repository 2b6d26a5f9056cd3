"""A command's way to the database: the configured one, or the embedded server while it runs."""

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

from src.cli.output import say
from src.common.exceptions import ExceptionWithErrorType, SettingsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from contextlib import AbstractContextManager

    from sqlalchemy.orm import Session

    from src.common.settings import Settings
    from src.common.stripe.gateway import Gateway
    from src.common.stripe.processing import InDatabase
    from src.local_postgres import RunningServer

    Route = AbstractContextManager[None]

T = TypeVar("T")


def get_settings() -> "Settings":
    """As of `src.common.settings`, which only now is loaded."""
    from src.common import settings

    return settings.get_settings()


@contextmanager
def database_in_reach(settings: "Settings") -> "Generator[RunningServer | None]":
    """As `src.common.postgres.reach` does, with the embedded server's progress on stderr.

    Closes all connections at its end.

    Raises:
        DatabaseBusy: a passing condition of the database; says where it is.
        SettingsError: the database refuses us, or is not migrated; or as of `database_reach`.
    """
    from sqlalchemy.exc import DBAPIError

    from src.common import database
    from src.common.postgres import reach

    with reach.database_in_reach(settings, lambda line: say(line, err=True)) as server:
        try:
            yield server
        except DBAPIError as error:
            explained = explain(error, settings)
            if explained is None:
                raise
            raise explained from None
        finally:
            database.dispose_db()


@contextmanager
def migrated_database(settings: "Settings") -> "Generator[RunningServer | None]":
    """As `database_in_reach`, and the database is looked at before anything is said or begun.

    Raises:
        DatabaseBusy: as `database_in_reach`.
        SettingsError: as there, or it lacks a migration that this release needs; or there is no
            embedded database yet. None is made, as its folder may be mistyped.
    """
    if settings.database_host is None and settings.is_local:
        _refuse_empty_folder()
    with database_in_reach(settings) as server:
        refuse_old_schema()
        yield server


def _refuse_empty_folder() -> None:
    from src.local_postgres import data_folder, holds_database

    if not holds_database():
        raise SettingsError(
            f"There is no database in {data_folder()} (FLASHSLIDES_DATA_DIR names another folder); "
            "`flashslides serve` makes one"
        )


def explain(error: Exception, settings: "Settings") -> ExceptionWithErrorType | None:
    """The one sentence to say of an error that is the database's, and no defect of ours."""
    from sqlalchemy.exc import DBAPIError

    from src.common.postgres.conditions import explain_database_error

    if not isinstance(error, DBAPIError):
        return None
    try:
        return explain_database_error(error, settings, _revision)
    except DBAPIError as second:  # of asking for the revision
        return explain_database_error(second, settings, lambda: None)


def refuse_old_schema() -> None:
    """A configured database is migrated when its operator says so, not by whoever starts first.

    Raises:
        SettingsError: it lacks a migration that this release needs, or is not as SHARDING says.
    """
    from src.common.database import read_from_database
    from src.common.postgres.routes import unrouted

    with unrouted():
        read_from_database(_refuse_other_schema)


def refuse_newer_schema() -> None:
    """Migrations of a newer release are not ours to compare with, or to undo.

    Raises:
        SettingsError: this release does not know the database's revision.
    """
    from src.common.postgres.migrations import describe_revision, is_behind

    found = _revision()
    if found is not None and not is_behind(found) and (problem := describe_revision(found)):
        raise SettingsError(problem)


def _refuse_other_schema(session: "Session") -> None:
    from src.common.postgres.migrations import current_revision, describe_revision, is_behind
    from src.common.sharding.refusals import refuse_other_division

    connection = session.connection()
    found = current_revision(connection)
    if is_behind(found):
        raise SettingsError(str(describe_revision(found)))
    refuse_other_division(connection, get_settings())


def _revision() -> str | None:
    from src.common.database import read_from_database
    from src.common.postgres.migrations import current_revision

    return read_from_database(lambda session: current_revision(session.connection()))


def run_with_stripe(
    settings: "Settings",
    work: "Callable[[InDatabase, Gateway | None], Awaitable[T]]",
    *,
    route: "Route | None" = None,
) -> T:
    """Run what needs both the database and Stripe, wherever the settings say they are.

    `route` is as of `run_operation`.

    Raises:
        DatabaseBusy, SettingsError: as `migrated_database`.
    """
    import asyncio

    from src.common.stripe.gateway import open_gateway

    async def run() -> T:
        async with open_gateway(settings) as gateway:
            return await work(in_database, gateway)

    with migrated_database(settings), route or nullcontext():
        return asyncio.run(run())


async def in_database(work: "Callable[[Session], T]") -> T:
    """Run work in one database transaction, holding up this thread's tasks meanwhile.

    First the others have their turn, and whoever is cancelled ends here.
    """
    import asyncio

    from src.common.database import run_in_database_transaction

    await asyncio.sleep(0)
    return run_in_database_transaction(work)


def run_operation(
    settings: "Settings", work: "Callable[[Session], T]", *, route: "Route | None" = None
) -> T:
    """Run one operation in one database transaction, wherever the settings' database is.

    `route` says whose tables it sees, where groups of users have schemas (`whose.py`).

    Raises:
        DatabaseBusy, SettingsError: as `migrated_database`.
    """
    from src.common.database import run_in_database_transaction

    with migrated_database(settings), route or nullcontext():
        return run_in_database_transaction(work)


def run_reading(
    settings: "Settings", work: "Callable[[Session], T]", *, route: "Route | None" = None
) -> T:
    """Run what only reads, wherever the settings' database is.

    `route` says whose tables it sees, where groups of users have schemas (`whose.py`).

    Raises:
        DatabaseBusy, SettingsError: as `migrated_database`.
    """
    from src.common.database import read_from_database

    with migrated_database(settings), route or nullcontext():
        return read_from_database(work)
