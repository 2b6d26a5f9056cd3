"""Copies a database that is in service into another one, which takes its place in the end.

One of the two has its users in groups, the other one has no groups (decision 0069). The copy goes
on while the source is written to, pass by pass, and may be interrupted at any point. Only the last
pass holds the source; then the source is closed, and what was copied is opened.
"""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psycopg
from sqlalchemy import Connection, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError

from src.common.exceptions import Conflict, DatabaseBusy, Inconsistent, SettingsError
from src.common.postgres.citus import is_citus
from src.common.postgres.errors import RetryableDatabaseError, translate_transient_error
from src.common.postgres.migrations import ADVISORY_LOCK, head_revision, hold_migration_lock
from src.common.postgres.reach import build_migration_engine
from src.common.postgres.routes import SHARED_SCHEMA
from src.common.settings import Settings
from src.common.sharding.copying.closing import close, is_closed, reopen
from src.common.sharding.copying.databases import Database, database_of
from src.common.sharding.copying.ledgers import share_ledger
from src.common.sharding.copying.parity import Parity
from src.common.sharding.copying.passes import Pass
from src.common.sharding.directory_check import directory_differences
from src.common.sharding.notice_numbers import count_apart, count_on, highest_number

_PATIENCE_SECONDS = 10.0
_ACTIONS = "console_actions_action_id_seq"
_NO_SUCH_SERVICE = "definition of service"
"""Libpq's words, which stand for no code."""
_IN_SERVICE = (
    "This database has users, or events of Stripe's, and is open: it is in service, and is not "
    "written over. Was it copied already? Copy into a new one otherwise"
)
_ALIKE = (
    "{} have users in groups: of the two databases one has, and the other one has not. SHARDING "
    "says which this one is, and `flashslides db upgrade` divides it while it is empty"
)


@dataclass(frozen=True)
class Copy:
    """Two databases that are reached, of which nobody else changes the tables meanwhile."""

    source: Database
    here: Database
    """The one that the settings name."""

    def compare(self) -> Generator[Parity]:
        """Only compare."""
        yield from self._go_on(writes=False)

    def copy(self) -> Generator[Parity]:
        """Bring over what is new or has changed, while the source is written to.

        From now on this database is closed.

        Raises:
            Conflict: DATABASE_IN_SERVICE, this one has users, or events of Stripe's, and is open.
            DatabaseBusy: somebody writes here for too long.
            Inconsistent: COPY_DIFFERS or DIRECTORY_DIFFERS.
            SettingsError: as of `Pass.run`.
        """
        self._close_here()
        yield from self._go_on(writes=True)
        self._finish()

    def cut_over(self) -> Generator[Parity]:
        """Bring the rest over while nobody writes to the source, close it, and open this one.

        Raises:
            Conflict, Inconsistent, SettingsError: as of `copy`; the source goes on.
            DatabaseBusy: somebody writes to the source, or reads here, for too long; it goes on.
        """
        self._close_here()
        with self.source.held():
            yield from self._go_on(writes=True)
            self._finish()
            close(self.source)
            # Nobody can keep us waiting any more once the source is closed.
            with self.here.held("ACCESS EXCLUSIVE"):
                reopen(self.here)
                self.source.commit()

    def _go_on(self, *, writes: bool) -> Generator[Parity]:
        going = Pass(self.source, self.here, writes)
        with going.at_work():
            share_ledger(self.source, self.here, going.parity, writes=writes)
        yield from going.run()
        if writes and self.source.is_held:
            going.refuse_rows_of_nobody()
            if not going.parity.is_same:
                raise Inconsistent("The two databases differ: the source goes on", "COPY_DIFFERS")

    def _close_here(self) -> None:
        """So that nobody signs up here meanwhile, who would be in no other database."""
        connection = self.here.connection
        closed = is_closed(connection)
        connection.rollback()
        if closed:
            return
        with self.here.snapshot():
            self._refuse_in_service()  # who is in service does not even wait
        with self.here.held():
            self._refuse_in_service()  # who was signing up has done so by now
            self.here.pass_triggers()
            close(self.here)

    def _refuse_in_service(self) -> None:
        if self.here.has_served():
            raise Conflict(_IN_SERVICE, "DATABASE_IN_SERVICE")

    def _finish(self) -> None:
        """Have what is counted go on beyond the source's, and look at the directory."""
        connection = self.here.connection
        with self.source.snapshot():
            notices = highest_number(self.source.connection, self.source.users_schemas)
            actions = highest_number(self.source.connection, [SHARED_SCHEMA], _ACTIONS)
        count_on(connection, SHARED_SCHEMA, actions, _ACTIONS)
        if not self.here.groups:
            count_on(connection, SHARED_SCHEMA, notices)
        for group in self.here.groups:
            count_apart(connection, group, self.here.groups, notices)
        connection.commit()
        difference = next(directory_differences(connection), None) if self.here.groups else None
        connection.rollback()
        if difference is not None:
            raise Inconsistent(
                f"User {difference.user_id} of {difference.schema} {difference.what}",
                "DIRECTORY_DIFFERS",
            )


@contextmanager
def opened(settings: Settings, service: str) -> Generator[Copy]:
    """Reach the source by a service of libpq's, and the database of the settings.

    Raises:
        DatabaseBusy: one of them is out of reach, or busy: what was copied stays.
        SettingsError: one of them refuses us, lacks migrations, has negative balances or is on
            Citus; or both, or neither, have users in groups.
        Inconsistent: COPY_REFUSED, PostgreSQL refuses what is to be copied.
    """
    with ExitStack() as stack:
        stack.enter_context(_explained())
        connection = stack.enter_context(build_migration_engine(settings).connect())
        hold_migration_lock(connection, patience_seconds=_PATIENCE_SECONDS)
        theirs = stack.enter_context(_connect(service))
        copy = Copy(database_of(theirs), database_of(connection))
        _refuse_what_cannot_be_copied(copy)
        yield copy


@contextmanager
def _explained() -> Generator[None]:
    """The errors of the driver's own connections, as those of the engines are."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        said = str(error).partition("\n")[0]
        raise SettingsError(f"Copy as the owner of the tables on both sides: {said}") from None
    except psycopg.OperationalError as error:
        said = str(error).partition("\n")[0]
        raise DatabaseBusy(f"{said}: repeat the command, which goes on where it stopped") from None
    except psycopg.Error as error:
        # Its detail has the row, and so may the sentence about a value.
        is_of_value = isinstance(error, psycopg.DataError)
        said = (None if is_of_value else error.diag.message_primary) or type(error).__name__
        named = error.diag.constraint_name or error.sqlstate
        raise Inconsistent(
            f"PostgreSQL refused what was to be copied: {said} ({named}). What was copied before "
            "is kept",
            "COPY_REFUSED",
        ) from None


@contextmanager
def _connect(service: str) -> Generator[Connection]:
    engine = create_engine(
        "postgresql+psycopg://",
        poolclass=NullPool,
        connect_args={"service": service, "application_name": "flashslides copy"},
        hide_parameters=True,
    )
    event.listen(engine, "handle_error", translate_transient_error, retval=True)
    try:
        connection = engine.connect()
    except DBAPIError as error:
        said = f"--from {service}: {str(error.orig).partition(chr(10))[0]}"
        if isinstance(error, RetryableDatabaseError) and _NO_SUCH_SERVICE not in said:
            raise DatabaseBusy(said) from None
        raise SettingsError(f"{said}; look at libpq's service and password files") from None
    with connection:
        # Of the very database that the settings name, or of one that is migrated, somebody has it.
        granted = connection.exec_driver_sql(
            f"SELECT pg_try_advisory_lock_shared({ADVISORY_LOCK})"
        ).scalar_one()
        connection.rollback()
        if not granted:
            raise SettingsError(
                f"--from {service} is the database of the settings itself, or is being migrated"
            )
        yield connection


def _refuse_what_cannot_be_copied(copy: Copy) -> None:
    if bool(copy.source.groups) is bool(copy.here.groups):
        raise SettingsError(_ALIKE.format("Both" if copy.here.groups else "Neither"))
    expected = head_revision()
    for database, named in ((copy.source, "The source"), (copy.here, "This database")):
        with database.snapshot():
            revisions = database.revisions()
            has_citus = is_citus(database.connection)
        database.connection.rollback()
        if has_citus:
            raise SettingsError(
                f"{named} is on Citus: copies are between databases that are on one server each"
            )
        if revisions != {expected}:
            raise SettingsError(
                f"{named} is not at revision {expected}: run `flashslides db upgrade`"
            )
    with copy.source.snapshot():
        if copy.source.has_negative_balances():
            raise SettingsError(
                "The source has negative balances, from before the ledger: run `flashslides "
                "credits import-opening-balances` there first"
            )
