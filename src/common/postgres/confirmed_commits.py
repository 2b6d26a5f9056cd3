"""Answers a COMMIT once all that its database transaction wrote and found is as durable as asked.

A server with synchronous standbys (`synchronous_standby_names`) lets a COMMIT wait for them, where
the database transaction wrote something. What it only found may be committed on this server alone:
somebody's wait was cancelled, or the server was started anew. An answer that rests on it would be
lost with the server. So a small record of the log is written before each COMMIT, which then waits
for that and for all before it (decision 0053). asyncpg's side is `async_confirmed_commits.py`.
"""

import time
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import waiting
from psycopg.pq import TransactionStatus

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.errors import Diagnostic
    from sqlalchemy.engine import ExceptionContext

RV = TypeVar("RV")

REST_ON_WHAT_WAS_FOUND = (
    "SELECT pg_logical_emit_message(true, 'flashslides', '')"
    " WHERE current_setting('synchronous_standby_names') <> ''"
    " AND current_setting('synchronous_commit') NOT IN ('off', 'local')"
    " AND NOT pg_is_in_recovery()"
)
"""Writes the record where standbys are waited for, and gives a row then."""
LOOK_SECONDS = 1.0
"""How long a connection believes that no standbys are waited for: a reload may change that."""
_GIVES_WAITING_UP = "SyncRepWaitForLSN"
"""The function of the server that warns of it, whatever language its messages have."""
_UNIQUE_VIOLATION = "23505"
_RAISED = "P0001"
_INTERVAL_SECONDS = 0.1
"""How often a waiting psycopg looks up, for Ctrl-C: its own default."""


class CommitNotConfirmed(ConnectionError):
    """Nobody knows whether a COMMIT has reached the standbys; the server itself may have it."""

    def __init__(self) -> None:
        super().__init__("commit not confirmed by the standbys")


class Confirmation:
    """What one connection knows of the standbys."""

    def __init__(self) -> None:
        self._looked_at: float | None = None
        self._are_awaited = False
        self.was_given_up = False
        """Whether the server has answered a COMMIT without waiting for them to the end."""
        self.has_found_a_duplicate = False
        """Whether this database transaction failed on what somebody wrote, and so tells of it."""
        self.refusal: str | None = None
        """What a trigger on another node has said against the COMMIT at hand.

        Citus warns of it in that node's words, and then reports an internal error of its own."""

    @property
    def is_to_be_asked_for(self) -> bool:
        """Whether `REST_ON_WHAT_WAS_FOUND` goes before a COMMIT."""
        looked_at = self._looked_at
        return self._are_awaited or looked_at is None or time.monotonic() - looked_at > LOOK_SECONDS

    def note(self, *, are_awaited: bool) -> None:
        """Note whether it gave a row."""
        self._looked_at, self._are_awaited = time.monotonic(), are_awaited

    def hear(self, source_function: str | None, sqlstate: str | None, message: str | None) -> None:
        """Hear what the server has to say, and which function of it."""
        self.was_given_up |= source_function == _GIVES_WAITING_UP
        if sqlstate == _RAISED:
            self.refusal = message


class ConfirmingConnection(psycopg.Connection[Any]):
    """A connection of psycopg's whose `commit` returns once that is confirmed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.confirmation = Confirmation()
        self._is_committing = False
        self.add_notice_handler(self._hear)

    def commit(self) -> None:
        """Commit, and wait for it.

        Raises:
            CommitNotConfirmed: the server has it, and did not wait to the end.
            RaiseException: a trigger refuses it, on whichever node.
        """
        if self.info.transaction_status is TransactionStatus.INTRANS:
            self._rest_on_what_was_found()
        self._is_committing, self.confirmation.refusal = True, None
        try:
            super().commit()
        except psycopg.errors.InternalError_ as error:
            if self.confirmation.refusal is None:
                raise
            raise psycopg.errors.RaiseException(self.confirmation.refusal) from error
        finally:
            self._is_committing = False
        self.confirmation.has_found_a_duplicate = False
        if self.confirmation.was_given_up:
            self.close()
            raise CommitNotConfirmed

    def rollback(self) -> None:
        """Roll back. Where a duplicate was found, whoever hears of it waits for that one.

        Raises:
            CommitNotConfirmed: see `commit`.
        """
        super().rollback()
        if self.confirmation.has_found_a_duplicate:
            self.confirmation.has_found_a_duplicate = False
            self._rest_on_what_was_found()
            self.commit()

    def wait(
        self, gen: "PQGen[RV]", interval: float = _INTERVAL_SECONDS, timeout: float | None = None
    ) -> RV:
        """Wait for the server; Ctrl-C leaves a COMMIT to it, where psycopg would cancel its wait.

        What is cancelled then is the wait for the standbys alone.
        """
        if not self._is_committing:
            return super().wait(gen, interval, timeout)
        try:
            return waiting.wait(gen, self.pgconn.socket, interval=interval, timeout=timeout)
        except KeyboardInterrupt:
            self.close()
            raise

    def _rest_on_what_was_found(self) -> None:
        if self.confirmation.is_to_be_asked_for:
            found = self.execute(REST_ON_WHAT_WAS_FOUND, prepare=False)
            self.confirmation.note(are_awaited=found.rowcount > 0)

    def _hear(self, notice: "Diagnostic") -> None:
        self.confirmation.hear(notice.source_function, notice.sqlstate, notice.message_primary)


def note_duplicate(context: "ExceptionContext") -> None:
    """SQLAlchemy's `handle_error` hook: a violated unique key tells of somebody else's row."""
    if context.connection is None or context.connection.invalidated:
        return
    if getattr(context.original_exception, "sqlstate", None) == _UNIQUE_VIOLATION:
        driver_connection = context.connection.connection.driver_connection
        confirmation = getattr(driver_connection, "confirmation", None)
        if isinstance(confirmation, Confirmation):
            confirmation.has_found_a_duplicate = True
