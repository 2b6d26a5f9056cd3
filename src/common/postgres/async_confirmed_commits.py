"""asyncpg's connections that answer a COMMIT once it is confirmed (`confirmed_commits.py`)."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import asyncpg

from src.common.postgres.confirmed_commits import (
    REST_ON_WHAT_WAS_FOUND,
    CommitNotConfirmed,
    Confirmation,
)

T = TypeVar("T")

_COMMITS = frozenset({"COMMIT", "COMMIT;"})
"""As the engine writes it, and as asyncpg does for SQLAlchemy."""
_ROLLBACKS = frozenset({"ROLLBACK", "ROLLBACK;"})
_NOTHING_FOUND = "SELECT 0"
NOT_ASYNCPG_S_SECONDS = 1e6
"""The time-out of what commits: asyncpg's own would cancel the wait for the standbys."""


class AsyncConfirmingConnection(asyncpg.Connection):
    """A connection whose COMMIT returns once that is confirmed.

    Who waits longer than `patience`, or is cancelled meanwhile, ends the connection. The server
    goes on waiting, and what it commits stays locked until the standbys have it.
    """

    patience: float | None = None
    """In seconds; None is without end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.confirmation = Confirmation()
        self.add_log_listener(self._hear)

    async def execute(
        self,
        query: str,
        *args: Any,
        timeout: float | None = None,  # noqa: ASYNC109  asyncpg's own
    ) -> str:
        """As asyncpg's; a COMMIT, once it is confirmed.

        So is what is told of by a ROLLBACK after a duplicate was found.

        Raises:
            TimeoutError, CommitNotConfirmed: see `confirmed`.
            RaiseError: a trigger refuses it, on whichever node.
        """
        if query in _COMMITS:
            self.confirmation.has_found_a_duplicate = False
            with suppress(asyncpg.InFailedSQLTransactionError):  # then COMMIT rolls back
                await self._rest_on_what_was_found()
            self.confirmation.refusal = None
            try:
                return await self.confirmed(super().execute(query, timeout=NOT_ASYNCPG_S_SECONDS))
            except asyncpg.InternalServerError as error:
                if self.confirmation.refusal is None:
                    raise
                raise asyncpg.RaiseError(self.confirmation.refusal) from error
        done = await super().execute(query, *args, timeout=timeout)
        if query in _ROLLBACKS and self.confirmation.has_found_a_duplicate:
            self.confirmation.has_found_a_duplicate = False
            await self.confirm_what_was_found()
        return done

    async def confirm_what_was_found(self) -> None:
        """Outside any database transaction: wait until what was read before is as durable as asked.

        Raises:
            TimeoutError, CommitNotConfirmed: see `confirmed`.
        """
        await self.confirmed(self._rest_on_what_was_found(NOT_ASYNCPG_S_SECONDS))

    async def confirmed(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a statement that commits; its own time-out is `NOT_ASYNCPG_S_SECONDS`.

        After either error the connection is closed.

        Raises:
            TimeoutError: the server has not answered.
            CommitNotConfirmed: it has it, and did not wait to the end.
        """
        task = asyncio.create_task(work)
        task.add_done_callback(_retrieve_error)
        try:
            await asyncio.wait((task,), timeout=self.patience)
        finally:
            if not task.done() or self.confirmation.was_given_up:
                self.terminate()
        if not task.done():
            raise TimeoutError
        result = task.result()
        if self.confirmation.was_given_up:
            raise CommitNotConfirmed
        return result

    async def _rest_on_what_was_found(self, timeout_seconds: float | None = None) -> None:
        if self.confirmation.is_to_be_asked_for:
            done = await super().execute(REST_ON_WHAT_WAS_FOUND, timeout=timeout_seconds)
            self.confirmation.note(are_awaited=done != _NOTHING_FOUND)

    def _hear(self, _connection: object, message: asyncpg.PostgresLogMessage) -> None:
        self.confirmation.hear(message.server_source_function, message.sqlstate, message.message)


def _retrieve_error(task: "asyncio.Task[Any]") -> None:
    """Nobody may be left to hear it."""
    if not task.cancelled():
        task.exception()
