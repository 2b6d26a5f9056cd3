"""A database connection of the engine: kept between batches, replaced when it is lost."""

import math
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from src.common.credits.domain.book import Book
from src.common.credits.domain.commands import Command
from src.common.credits.domain.decisions import Outcome
from src.common.credits.engine.batches import (
    Prepared,
    Skipped,
    follow,
    prepare,
    read_unlocked,
    run_batch,
    write_guarded,
)
from src.common.credits.persistence.reading import Locking
from src.common.exceptions import ExceptionWithErrorType
from src.common.postgres.async_confirmed_commits import AsyncConfirmingConnection
from src.common.postgres.disposal import Connections, dispose_async
from src.common.postgres.engines import PLAIN_BEGIN
from src.common.postgres.errors import (
    LOCK_NOT_AVAILABLE,
    QUERY_CANCELED,
    READ_ONLY,
    STALE_PLAN,
    RetryableDatabaseError,
    translate_asyncpg_error,
)

if TYPE_CHECKING:
    from sqlalchemy import PoolProxiedConnection

T = TypeVar("T")

CONNECTIONS_MAX = 49
"""As many as the pool may hold; a server that restarted has broken all of them."""

_UNUSABLE = (
    *(asyncpg.PostgresError, asyncpg.InterfaceError, OSError),
    asyncpg.InternalClientError,  # of one whose end has arrived and was not yet noticed
)
_WAITED_IN_VAIN = (LOCK_NOT_AVAILABLE, QUERY_CANCELED)
HOLDERS = """
WITH unlocked AS (
    SELECT user_id FROM users WHERE user_id = ANY($1::uuid[]) FOR NO KEY UPDATE SKIP LOCKED
)
SELECT user_id, concat(xmin, ' ', xmax) FROM users
WHERE user_id = ANY($1::uuid[]) AND user_id NOT IN (SELECT user_id FROM unlocked)
"""
"""A row's `xmin` is who wrote it, its `xmax` who has locked it."""


class EngineConnection:
    """Runs batches, one at a time; `begin` begins their database transactions."""

    def __init__(self, connections: Connections, begin: str, statement_timeout_ms: int = 0) -> None:
        self._connections = connections
        self._statement_timeout_ms = statement_timeout_ms
        self._usual_begin = self._begin = begin
        self._pooled: PoolProxiedConnection | None = None
        self.was_lost = False
        """Whether the last batch ended with the connection, or never had one.

        In the first case nobody knows whether it committed.
        """
        self.was_contended = False
        """Whether others wrote to a user while the last batch waited for the row."""

    @property
    def may_prepare(self) -> bool:
        """Not behind a pooler: there a database transaction carries the time-outs."""
        return self._begin == PLAIN_BEGIN

    async def prepare(
        self, commands: Sequence[Command], left: Mapping[uuid.UUID, Book]
    ) -> Prepared | None:
        """Read and decide a batch without locks, on top of what one being written will have left.

        None where it has to be run with locks. So has the first batch of a connection, which shows
        that its server is no standby: its books may be of yesterday.
        """
        if self._pooled is None or not self.may_prepare:
            return None
        try:
            books = await read_unlocked(_driver_connection(self._pooled), commands)
        except _UNUSABLE:
            self.drop()
            return None
        followed = follow(books, left)
        return None if followed is None else prepare(followed, commands)

    async def write(self, prepared: Prepared) -> bool:
        """Write what was prepared; False where somebody came between, and nothing was done.

        Raises:
            RetryableDatabaseError: a passing condition.
            Exception: whatever else failed.
        """
        self.was_lost = False
        connection = _driver_connection(await self._pooled_connection())
        return await self._finished(connection, write_guarded(connection, prepared))

    async def run(self, commands: Sequence[Command], locking: Locking) -> list[Outcome | Skipped]:
        """Run a batch with locks, as `run_batch`; all are skipped that waited in vain.

        Raises:
            RetryableDatabaseError: a passing condition.
            Exception: whatever else failed.
        """
        try:
            outcomes, self.was_contended = await self.transact(
                partial(run_batch, commands=commands, locking=locking)
            )
        except RetryableDatabaseError as error:
            if locking is not Locking.WAIT or error.sqlstate not in _WAITED_IN_VAIN:
                raise
            return [Skipped.SKIPPED] * len(commands)
        return outcomes

    async def transact(self, work: Callable[[asyncpg.Connection], Coroutine[Any, Any, T]]) -> T:
        """What `work` returns, done in a database transaction of its own and committed.

        Raises:
            RetryableDatabaseError: a passing condition.
            Exception: whatever else failed; all is rolled back, unless the connection was lost,
                when nobody knows.
        """
        self.was_lost = False
        try:
            connection = await self._begun()
        except Exception as error:
            self.drop()
            self.was_lost = True
            raise _translated(error, is_disconnect=True) from error
        return await self._finished(connection, _ended(connection, work(connection)))

    def limit_waiting(self, seconds: float) -> None:
        """For how long at most the next batches wait for a row.

        A row that others write to is waited for again and again in one statement, each time for
        less than the limit: so the statements have it as well.
        """
        milliseconds = max(1, math.ceil(seconds * 1_000))
        statement = min(milliseconds, self._statement_timeout_ms or milliseconds)
        self._begin = (
            f"{self._usual_begin}; SET LOCAL lock_timeout = {milliseconds};"
            f" SET LOCAL statement_timeout = {statement}"
        )

    async def find_holders(self, user_ids: Sequence[uuid.UUID]) -> dict[int, str]:
        """Whose rows somebody else has locked at this moment, and who; waits for none of them.

        Users are numbers here. Nobody's where it cannot be found out: what is run instead will tell
        the error.
        """
        try:
            connection = _driver_connection(await self._pooled_connection())
            rows = await connection.fetch(HOLDERS, user_ids)
        except (*_UNUSABLE, SQLAlchemyError):
            self.drop()
            return {}
        return {user_id.int: holder for user_id, holder in rows}

    async def _finished(self, connection: asyncpg.Connection, work: Coroutine[Any, Any, T]) -> T:
        """The result of what may write; its errors as ours, and the connection dropped if lost."""
        try:
            return await work
        except Exception as error:
            if isinstance(error, TimeoutError):
                connection.terminate()  # the server does not answer, and would not next time
            self.was_lost = connection.is_closed()
            translated = _translated(error, is_disconnect=self.was_lost)
            if self.was_lost or _is_useless_after(translated):
                self.drop()
            raise translated from error

    async def _begun(self) -> asyncpg.Connection:
        """A connection in a new database transaction; those that broke while idle are replaced."""
        for _ in range(CONNECTIONS_MAX):
            try:
                return await self._begin_on(await self._pooled_connection())
            except TimeoutError:  # it fell silent while idle, as all that were idle may have
                self.drop()
                await dispose_async(self._connections)
            except _UNUSABLE:
                self.drop()
        return await self._begin_on(await self._pooled_connection())

    async def _pooled_connection(self) -> "PoolProxiedConnection":
        if self._pooled is None:
            self._pooled = await self._connections.raw_connection()
        return self._pooled

    async def _begin_on(self, pooled: "PoolProxiedConnection") -> asyncpg.Connection:
        connection = _driver_connection(pooled)
        await connection.execute(self._begin)
        return connection

    def drop(self) -> None:
        """Give it up: the next batch gets another."""
        pooled, self._pooled = self._pooled, None
        if pooled is not None:
            pooled.invalidate()

    def close(self) -> None:
        """Give the connection back."""
        pooled, self._pooled = self._pooled, None
        if pooled is not None:
            pooled.close()


async def _ended(connection: asyncpg.Connection, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, and the end of the database transaction it was done in."""
    try:
        result = await work
    except BaseException:
        if not connection.is_closed():
            await connection.execute("ROLLBACK")
        raise
    await connection.execute("COMMIT")
    return result


def _driver_connection(pooled: "PoolProxiedConnection") -> AsyncConfirmingConnection:
    connection: AsyncConfirmingConnection = pooled.driver_connection  # type: ignore[assignment]  # asyncpg's
    return connection


def _is_useless_after(error: Exception) -> bool:
    """Whether the next batch needs another connection.

    Its plans are out of date, or its server only reads: a standby, whose books are of yesterday,
    and which would go on answering refusals from them.
    """
    return isinstance(error, RetryableDatabaseError) and (
        error.reason == STALE_PLAN or error.sqlstate == READ_ONLY
    )


def _translated(error: Exception, *, is_disconnect: bool) -> Exception:
    if isinstance(error, ExceptionWithErrorType | DBAPIError):
        return error
    return translate_asyncpg_error(error, is_disconnect=is_disconnect)
