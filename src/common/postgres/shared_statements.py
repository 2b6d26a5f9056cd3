"""Questions of one kind, asked at once by many: one statement for all who wait, no timer.

Whoever asks while a statement is on its way travels in the next one. A statement begins after it
was asked for, so it finds whatever was committed before.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from contextvars import Context
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import asyncpg
import structlog
from sqlalchemy.exc import SQLAlchemyError

from src.common import tracing
from src.common.postgres.async_confirmed_commits import AsyncConfirmingConnection
from src.common.postgres.routes import routed_to_schema

if TYPE_CHECKING:
    from opentelemetry.trace import Span
    from sqlalchemy.ext.asyncio import AsyncEngine

logger = structlog.get_logger(__name__)

QUESTIONS_MAX = 256
_FAILED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

Question = TypeVar("Question", bound=Hashable)
Answer = TypeVar("Answer")
Question_contra = TypeVar("Question_contra", contravariant=True)
Answer_co = TypeVar("Answer_co", covariant=True)


class NotAnswered(Exception):
    """Nothing could be answered this way; a session asks again, and tells what is wrong."""


class AsksTogether(Protocol[Question_contra, Answer_co]):
    """Whatever answers questions of one kind for many at once."""

    async def read(self, asked: Question_contra, /) -> Answer_co | None:
        """As `SharedStatement.read`."""
        ...


class SharedStatement(ABC, Generic[Question, Answer]):
    """Asks for the tasks of one event loop, over the process's own pool.

    Where groups of users have schemas, it asks one of them, `group`, or else what is everybody's.
    """

    def __init__(self, connections: "Callable[[], AsyncEngine]", group: str | None = None) -> None:
        self._connections = connections
        self._group = group
        self._waiting: dict[Question, asyncio.Future[Answer | None]] = {}
        self._working: asyncio.Task[None] | None = None
        self._callers: list[Span] = []
        """The spans of those who wait, where tracing is on."""

    @abstractmethod
    async def found(
        self, connection: AsyncConfirmingConnection, asked: Sequence[Question]
    ) -> dict[Question, Answer]:
        """The answers, by one statement; what has none is missing."""

    async def read(self, asked: Question) -> Answer | None:
        """The answer; None where there is none.

        Raises:
            NotAnswered: the database does not answer, or answers with an error.
        """
        if tracing.is_on() and (caller := tracing.current_span()) is not None:
            self._callers.append(caller)
        answer = self._waiting.get(asked)
        if answer is None:
            answer = asyncio.get_running_loop().create_future()
            self._waiting[asked] = answer
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
            logger.error("Asking together ended by a bug", what=self._what, exc_info=bug)
        if self._waiting:
            self._start()

    async def _work(self) -> None:
        while self._waiting:
            taken = dict(list(self._waiting.items())[:QUESTIONS_MAX])
            for asked in taken:
                del self._waiting[asked]
            await self._answer(taken)

    async def _answer(self, waiting: dict[Question, "asyncio.Future[Answer | None]"]) -> None:
        try:
            callers, self._callers = self._callers, []
            with tracing.span(
                f"read together: {self._what}", links=callers, questions=len(waiting)
            ):
                found = await self._ask(list(waiting))
            for asked, answer in waiting.items():
                answer.set_result(found.get(asked))
        except (*_FAILED, OSError, SQLAlchemyError) as error:
            logger.info("Asked one by one instead", what=self._what, reason=type(error).__name__)
        finally:
            for answer in waiting.values():
                if not answer.done():
                    answer.set_exception(NotAnswered())
                    answer.exception()  # nobody may be left to hear it

    async def _ask(self, asked: Sequence[Question]) -> dict[Question, Answer]:
        with nullcontext() if self._group is None else routed_to_schema(self._group):
            pooled = await self._connections().raw_connection()
        try:
            connection: AsyncConfirmingConnection = pooled.driver_connection  # type: ignore[assignment]  # asyncpg's
            found = await self.found(connection, asked)
        except BaseException:
            pooled.invalidate()  # it may be silent: whoever got it next would wait as long
            raise
        pooled.close()
        return found

    @property
    def _what(self) -> str:
        return type(self).__name__
