"""What the rest of the code needs to know about migrations: run them, compare, refuse data loss.

The migrations themselves are in `alembic/`; plain `alembic` commands work from the repository root.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import structlog
from alembic import command, context, op
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_delay, wait_fixed

from src.common.exceptions import DatabaseBusy, SettingsError

logger = structlog.get_logger(__name__)

ALEMBIC_INI = Path(__file__).resolve().parents[2] / "alembic.ini"

# One number for every process that migrates this project's databases.
ADVISORY_LOCK = 7_205_759_403_792_801
LOCK_PAUSE_SECONDS = 0.25
LOCK_PATIENCE_SECONDS = 900.0


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, to be used from any working directory.

    With `connection`, commands run on it instead of on a connection of their own.
    """
    config = Config(ALEMBIC_INI)
    if connection is not None:
        config.attributes["connection"] = connection
    return config


def upgrade_to_head() -> None:
    """Bring the database to the newest revision; two processes at once migrate it once."""
    command.upgrade(alembic_config(), "head")


def head_revision() -> str:
    """The newest revision this code knows."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    if head is None:  # an empty alembic/versions/ is a broken installation
        raise RuntimeError(f"No migrations found beside {ALEMBIC_INI}")
    return head


def current_revision(connection: Connection) -> str | None:
    """The revision the database is at, or None before the first migration."""
    return MigrationContext.configure(connection).get_current_revision()


def is_behind(found: str | None) -> bool:
    """Whether a database at revision `found` lacks a migration that this release needs.

    A revision we do not know is a newer release's: it migrated first, and by our rules of expanding
    before contracting this release serves on until it is replaced.
    """
    return found is None or found in _revisions_below_head()


@cache  # asked by every /readyz, and the files of a running release do not change
def _revisions_below_head() -> frozenset[str]:
    scripts = ScriptDirectory.from_config(alembic_config())
    known = {script.revision for script in scripts.walk_revisions("base", "heads")}
    return frozenset(known - {head_revision()})


def hold_migration_lock(
    connection: Connection, *, patience_seconds: float = LOCK_PATIENCE_SECONDS
) -> None:
    """Wait until no other process migrates this database, and keep others waiting from now on.

    The lock belongs to the connection and goes with it, also when this process is killed. Who waits
    has no database transaction open between two tries: a concurrent index, which the other process
    may be building, waits for all of them, and the two would wait for each other.

    Raises:
        DatabaseBusy: the other process is still at it after `patience_seconds`.
    """

    def is_granted() -> bool:
        statement = text("SELECT pg_try_advisory_lock(:key)")
        granted: bool = connection.execute(statement, {"key": ADVISORY_LOCK}).scalar_one()
        connection.commit()
        return granted

    waiting = Retrying(
        retry=retry_if_result(lambda granted: granted is False),
        wait=wait_fixed(LOCK_PAUSE_SECONDS),
        stop=stop_after_delay(patience_seconds),
        before_sleep=_say_once_that_we_wait,
        retry_error_callback=_give_up_after(patience_seconds),
    )
    waiting(is_granted)


def _say_once_that_we_wait(attempt: RetryCallState) -> None:
    if attempt.attempt_number == 1:
        logger.info("Another process is migrating this database; waiting for it")


def _give_up_after(patience_seconds: float) -> Callable[[RetryCallState], None]:
    def give_up(_last_attempt: RetryCallState) -> None:
        raise DatabaseBusy(
            f"Another process has been migrating this database for {patience_seconds:g} seconds; "
            "nothing was changed here. Start again once it is done"
        )

    return give_up


def release_migration_lock(connection: Connection) -> None:
    """Let the next process migrate.

    Raises:
        SettingsError: this connection did not have the lock, so another process may have migrated
            at the same time.
    """
    statement = text("SELECT pg_advisory_unlock(:key)")
    held = connection.execute(statement, {"key": ADVISORY_LOCK}).scalar_one()
    connection.commit()
    if not held:
        raise SettingsError(
            "The migration lock was lost on the way: something before the server shares out its "
            "connections, as a transaction pooler does. Set DATABASE_DIRECT_HOST and "
            "DATABASE_DIRECT_PORT to the server's own address, and run `flashslides db check`"
        )


def found(query: str) -> bool:
    """Whether a migration's query finds a row; none where SQL is only printed (`--sql`)."""
    if context.is_offline_mode():
        return False
    return bool(op.get_bind().execute(text(f"SELECT EXISTS ({query})")).scalar_one())


def refuse_data_loss(*tables: str) -> None:
    """Stop a downgrade that would drop rows of `tables`, unless `-x allow-data-loss=true` says so.

    Raises:
        CommandError: naming the first table that is not empty.
    """
    allowed = context.get_x_argument(as_dictionary=True).get("allow-data-loss") == "true"
    if allowed or context.is_offline_mode():
        return
    for table in tables:
        # Who is about to add a row waits until it is too late, or is done before we look.
        op.execute(f"LOCK TABLE {table} IN SHARE MODE")
        if found(f"SELECT FROM {table}"):
            raise CommandError(
                f"This downgrade would drop the rows of {table}. Back them up, then repeat it "
                "with: alembic -x allow-data-loss=true downgrade …"
            )
