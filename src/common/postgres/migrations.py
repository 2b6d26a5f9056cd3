"""Runs migrations, compares the schema with the models, refuses to lose data.

The migrations themselves are in `alembic/`; plain `alembic` commands work from the repository root.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import Connection, inspect, text
from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_delay, wait_fixed

from src.common.exceptions import DatabaseBusy, SettingsError

if TYPE_CHECKING:  # Alembic is loaded where something is migrated, and not to look at a revision
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import Script, ScriptDirectory

logger = structlog.get_logger(__name__)

ALEMBIC_INI = Path(__file__).resolve().parents[3] / "alembic.ini"
_SAID = re.compile(r"^(revision|down_revision)\b[^=\n]*=(.*)$", re.MULTILINE)
_NAME = re.compile(r"""["'](\w+)["']""")

# One number for every process that migrates this project's databases.
ADVISORY_LOCK = 7_205_759_403_792_801
LOCK_PAUSE_SECONDS = 0.25
LOCK_PATIENCE_SECONDS = 900.0

HOW_TO_ALLOW_DATA_LOSS = "how-to-allow-data-loss"
"""The attribute of Alembic's configuration that says how whoever runs the command allows it."""
SCHEMAS_ATTRIBUTE = "schemas-of-groups"
"""The attribute of Alembic's configuration that names the groups' schemas which alone are meant."""
_ALEMBIC_S_OWN_WAY = "alembic -x allow-data-loss=true downgrade …"


@dataclass(frozen=True)
class Loss:
    """What a downgrade throws away: something of a table, where rows are found there.

    Each migration declares its own as `LOST_BY_DOWNGRADE: tuple[Loss, ...]`, empty where undoing it
    loses nothing that people, payments or the ledger put there. `where` chooses the rows with which
    it would be lost; it is asked while the database is still at the newest of the revisions.
    """

    table: str
    where: str = "true"
    what: str = "rows"

    @property
    def rows(self) -> str:
        """The query that finds what would be lost."""
        return f"SELECT FROM {self.table} WHERE {self.where}"

    def __str__(self) -> str:
        return f"{self.what} of {self.table}"


def alembic_config(connection: Connection | None = None) -> "Config":
    """Alembic's configuration, to be used from any working directory.

    With `connection`, commands run on it instead of on a connection of their own.
    """
    from alembic.config import Config

    config = Config(ALEMBIC_INI)
    if connection is not None:
        config.attributes["connection"] = connection
    return config


def upgrade_to_head() -> None:
    """Bring the database to the newest revision; two processes at once migrate it once."""
    from alembic import command

    command.upgrade(alembic_config(), "head")


def head_revision() -> str:
    """The newest revision this code knows."""
    head, *others = head_revisions()
    if others:
        raise RuntimeError(f"The migrations beside {ALEMBIC_INI} end in several revisions")
    return head


def head_revisions() -> frozenset[str]:
    """The revisions in which this code's migrations end: one, unless two branches were merged."""
    return _known_revisions() - _revisions_below_head()


def current_revision(connection: Connection) -> str | None:
    """The revision the database is at, or None before the first migration."""
    return next(iter(current_revisions(connection)), None)


def current_revisions(connection: Connection) -> tuple[str, ...]:
    """As `current_revision`, and all of them where somebody stamped several."""
    if not inspect(connection).has_table("alembic_version"):
        return ()
    found = connection.scalars(text("SELECT version_num FROM alembic_version ORDER BY 1"))
    return tuple(found)


def is_behind(found: str | None) -> bool:
    """Whether a database at revision `found` lacks a migration that this release needs.

    A revision we do not know is a newer release's: it migrated first, and by our rules of expanding
    before contracting this release serves on until it is replaced.
    """
    return found is None or found in _revisions_below_head()


def describe_revision(found: str | None) -> str | None:
    """What is wrong with a database at revision `found`, and what to do; None if it is the newest.

    Of a newer release's it is said that this one lacks something: ask where that is known.
    """
    expected = head_revision()
    if found == expected:
        return None
    if found is None:
        return "The database has none of this service's tables: run `flashslides db upgrade`"
    if is_behind(found):
        return (
            f"The database is at revision {found}, this release expects {expected}: "
            "run `flashslides db upgrade`"
        )
    return (
        f"The database is at revision {found} of a newer release, and this one, which ends at "
        f"{expected}, cannot use it: install the newer release"
    )


def _known_revisions() -> frozenset[str]:
    return frozenset(revision for revision, _ in _lineage())


def _revisions_below_head() -> frozenset[str]:
    return frozenset(each for _, below in _lineage() for each in below)


@cache  # asked by every /readyz, and the files of a running release do not change
def _lineage() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Each revision and those below it, as the migrations' files say it, none of them run."""
    files = sorted((ALEMBIC_INI.parent / "alembic" / "versions").glob("*.py"))
    if not files:
        raise RuntimeError(f"No migrations found beside {ALEMBIC_INI}")
    said = [dict(_SAID.findall(file.read_text(encoding="utf-8"))) for file in files]
    return tuple(
        (_NAME.findall(each["revision"])[0], tuple(_NAME.findall(each["down_revision"])))
        for each in said
    )


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
    from alembic import context

    if context.is_offline_mode():
        return False
    return bool(context.get_bind().execute(text(f"SELECT EXISTS ({query})")).scalar_one())


def migrations_to_undo(migration_context: "MigrationContext") -> "list[Script]":
    """The migrations that the command at hand is to undo, the newest first; none if it goes up.

    Only what has a destination has such a plan; asking for it changes nothing.
    """
    options = migration_context.opts
    if "destination_rev" not in options:
        return []
    heads = () if migration_context.purge else migration_context.get_current_heads()
    steps = options["fn"](heads, migration_context)
    undone = [step.info for step in steps if step.is_downgrade and not step.info.is_stamp]
    scripts: ScriptDirectory = options["script"]
    return [scripts.get_revision(info.up_revision_id) for info in undone]


def refuse_data_loss(undone: "Sequence[Script]") -> None:
    """Stop a downgrade that would lose anything, unless `-x allow-data-loss=true` says so.

    To be called in the database transaction that undoes all of these migrations: nobody adds a row
    between this look and its end. Whoever is adding one is waited for. SQL that is only printed
    (`--sql`) looks for itself.

    Raises:
        CommandError: naming everything that would be lost.
    """
    from alembic import context
    from alembic.util import CommandError

    losses: list[Loss] = [loss for script in undone for loss in script.module.LOST_BY_DOWNGRADE]
    if not losses or context.get_x_argument(as_dictionary=True).get("allow-data-loss") == "true":
        return
    context.execute("SET LOCAL lock_timeout = '3s'")
    context.execute(f"LOCK TABLE {', '.join(sorted({it.table for it in losses}))} IN SHARE MODE")
    if context.is_offline_mode():
        for loss in losses:
            context.execute(
                f"DO $$ BEGIN IF EXISTS ({loss.rows}) THEN RAISE EXCEPTION"
                f" 'This downgrade would lose {loss}'; END IF; END $$"
            )
    lost = [loss for loss in losses if found(loss.rows)]
    if lost:
        how = context.config.attributes.get(HOW_TO_ALLOW_DATA_LOSS, _ALEMBIC_S_OWN_WAY)
        raise CommandError(
            f"This downgrade would lose {', '.join(map(str, lost))}; nothing was changed. Make a "
            f"backup, then repeat it with: {how}"
        )
