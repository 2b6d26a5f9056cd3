"""What many users have, asked for at once: one statement for all who wait, no timer.

Whoever asks while a statement is on its way travels in the next one. A reading begins after it was
asked for, so it has whatever was committed before.
"""

import asyncio
import uuid
from collections.abc import Callable
from contextvars import Context
from typing import NamedTuple

import asyncpg
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from src.common.credits.domain import rules
from src.common.credits.domain.views import Balance
from src.common.credits.engine.batches import read_users
from src.common.credits.queries import balance_of

logger = structlog.get_logger(__name__)

BATCH_USERS_MAX = 256
_FAILED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Reading(NamedTuple):
    """What a user has now, and whether they may act."""

    balance: Balance
    is_active: bool


class ReadingFailed(Exception):
    """Nothing could be read this way; a session asks again, and tells what is wrong."""


class Readings:
    """Reads for the tasks of one event loop, over the process's own pool."""

    def __init__(self, connections: Callable[[], AsyncEngine]) -> None:
        self._connections = connections
        self._waiting: dict[uuid.UUID, asyncio.Future[Reading | None]] = {}
        self._working: asyncio.Task[None] | None = None

    async def read(self, user_id: uuid.UUID) -> Reading | None:
        """What the user has; None where there is no such user.

        Raises:
            ReadingFailed: the database does not answer, or answers with an error.
        """
        answer = self._waiting.get(user_id)
        if answer is None:
            answer = asyncio.get_running_loop().create_future()
            self._waiting[user_id] = answer
        if self._working is None:
            self._start()
        return await asyncio.shield(answer)  # others may wait for the same one

    def _start(self) -> None:
        # Not in the context of who came first: its request is not the others'.
        self._working = asyncio.create_task(self._work(), context=Context())
        self._working.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self._working = None
        if task.cancelled():
            return
        if (bug := task.exception()) is not None:
            logger.error("Reading balances ended by a bug", exc_info=bug)
        if self._waiting:
            self._start()

    async def _work(self) -> None:
        while self._waiting:
            taken = dict(list(self._waiting.items())[:BATCH_USERS_MAX])
            for user_id in taken:
                del self._waiting[user_id]
            await self._answer(taken)

    async def _answer(self, waiting: dict[uuid.UUID, "asyncio.Future[Reading | None]"]) -> None:
        try:
            found = await self._found(list(waiting))
            for user_id, answer in waiting.items():
                answer.set_result(found.get(user_id))
        except (*_FAILED, OSError, SQLAlchemyError) as error:
            logger.info("Balances are asked for one by one", reason=type(error).__name__)
        finally:
            for answer in waiting.values():
                if not answer.done():
                    answer.set_exception(ReadingFailed())
                    answer.exception()  # nobody may be left to hear it

    async def _found(self, user_ids: list[uuid.UUID]) -> dict[uuid.UUID, Reading]:
        pooled = await self._connections().raw_connection()
        try:
            connection: asyncpg.Connection = pooled.driver_connection  # type: ignore[assignment]  # asyncpg's
            books = await read_users(connection, user_ids)
        except BaseException:
            pooled.invalidate()  # it may be silent: whoever got it next would wait as long
            raise
        pooled.close()
        return {
            user_id: Reading(balance_of(rules.settle(book)), book.is_active)
            for user_id, book in books.items()
        }
