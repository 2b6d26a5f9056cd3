"""A lane: one connection and task that takes operations from the queue, batch by batch.

A batch is read and decided without locks, and then written. Where many more operations of its users
wait, the next batch of theirs is read and decided meanwhile, on a second connection: on what the
first will leave of their books. It is written after it, or goes back if the first fails.
"""

import asyncio
import uuid
from collections.abc import Container, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from src.common.credits.domain.book import Book
from src.common.credits.domain.decisions import holds_named
from src.common.credits.engine import attempts, metrics
from src.common.credits.engine.batches import Prepared
from src.common.credits.engine.connection import EngineConnection
from src.common.credits.engine.queue import Line, Queue, Waiting
from src.common.credits.engine.traced import begin_batch, end_batch
from src.common.credits.persistence.reading import Locking

if TYPE_CHECKING:
    from opentelemetry.trace import Span

logger = structlog.get_logger(__name__)

FOLLOW_FROM = 32
"""From how many operations on that wait behind a batch the next is prepared while it is written."""
LOCKS_FIRST_AFTER_CONFLICT = 16
"""How many batches lock first after one that somebody came between: more of those will follow."""
OVERDUE_AFTER_SECONDS = 0.1
"""When a batch that is not back yet no longer keeps other lanes from working."""


class Dispatcher(Protocol):
    """What a lane asks of its engine."""

    def is_worth_a_lane(self, lane: "Lane") -> bool:
        """Whether this lane should take what is ready."""
        ...

    def share(self) -> int:
        """How many operations it should take."""
        ...

    @property
    def has_to_share(self) -> bool:
        """Whether somebody else waits for a connection of those that lanes keep."""
        ...

    def wake_lanes(self) -> None:
        """Have lanes look whether they are needed."""
        ...

    def park(self, line: Line) -> None:
        """Have a line tried apart whose user somebody else has locked."""
        ...


@dataclass(slots=True, eq=False)
class _Batch:
    lines: list[Line]
    operations: list[Waiting]
    connection: EngineConnection
    prepared: Prepared | None = None
    error: Exception | None = None
    """What went wrong with preparing or writing it."""
    is_answered: bool = False
    span: "Span | None" = None
    """Of the whole of it, where tracing is on."""

    def left(self) -> dict[uuid.UUID, Book]:
        """The books it will leave."""
        return {book.user_id: book for book in self.prepared.changed} if self.prepared else {}


class Lane:
    """Run it in an event loop; it ends once the queue is closed and empty."""

    def __init__(
        self,
        queue: Queue,
        dispatcher: Dispatcher,
        connections: tuple[EngineConnection, EngineConnection],
        batch_max: int,
    ) -> None:
        self._queue = queue
        self._dispatcher = dispatcher
        self._connections = connections
        self._batch_max = batch_max
        self._held: list[_Batch] = []
        """What it has taken, and neither finished nor put back."""
        self._sleep: asyncio.Future[None] | None = None
        self._locks_first = 0
        """How many batches are still to lock before they read."""
        self._overdue = 0
        """More than 0 while a batch hangs: at a row, or at a server that is gone."""
        self._has_ended = False

    @property
    def is_asleep(self) -> bool:
        """Whether it waits to be woken."""
        return self._sleep is not None and not self._sleep.done()

    @property
    def is_woken(self) -> bool:
        """Whether it was woken and has not looked yet."""
        return self._sleep is not None and self._sleep.done()

    @property
    def is_working(self) -> bool:
        """Whether it has a batch, or is about to take one, and none that hangs."""
        return not self.is_asleep and not self._overdue and not self._has_ended

    def wake(self) -> None:
        """Have it look what there is to do."""
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)

    async def run(self) -> None:
        """Work batch by batch until the queue is closed and empty."""
        try:
            while self._queue.ready_operations or not self._queue.is_closed:
                metrics.QUEUED.set(self._queue.length)
                if self._dispatcher.is_worth_a_lane(self):
                    await self._work_off_whatever_happens(self._taken())
                    if self._dispatcher.has_to_share:
                        self.give_back()
                    await asyncio.sleep(0)  # who was answered may ask again before the next batch
                else:
                    self._sleep = asyncio.get_running_loop().create_future()
                    await self._sleep
                    self._sleep = None
        finally:
            self._has_ended = True
            self.give_back()

    def give_back(self) -> None:
        """Give its connections back, between two batches; it takes others when it needs them."""
        for connection in self._connections:
            connection.close()

    def _taken(self) -> _Batch:
        """Its share of what is ready.

        Of one user's many operations a half, where the rest may follow: not where it has to lock.
        """
        first, _ = self._connections
        may_follow = first.may_prepare and not self._locks_first
        split_from = 2 * FOLLOW_FROM if may_follow else self._batch_max + 1
        share = min(self._dispatcher.share(), self._batch_max)
        taken = self._queue.take(share, self._batch_max, split_from=split_from)
        return self._hold(_Batch(*taken, first))

    def _hold(self, batch: _Batch) -> _Batch:
        self._held.append(batch)
        batch.span = begin_batch(batch.operations)
        return batch

    async def _work_off_whatever_happens(self, first: _Batch) -> None:
        """A bug of the lane's own is told those it had taken, and it goes on without it."""
        try:
            await self._work_off(first)
        except Exception as bug:  # the callers' edge: nobody waits for ever
            logger.exception("A lane of the credits' engine failed by a bug")
            for batch in tuple(self._held):
                self._queue.fail(batch.operations, bug)
                self._finish(batch)
            for connection in self._connections:
                connection.drop()  # nobody knows what it was doing

    async def _work_off(self, first: _Batch) -> None:
        """A batch, and those that follow it closely."""
        await self._prepare(first, {})
        ahead: _Batch | None = None
        batch: _Batch | None = first
        while batch is not None:
            ahead, batch = batch, await self._carry_out(batch, ahead)

    async def _carry_out(self, batch: _Batch, ahead: _Batch | None) -> _Batch | None:
        """Write a batch; meanwhile answer the one ahead, and prepare one that follows.

        That one comes back, and this one is answered once that is on its way; or else at once.
        """
        if batch.prepared is None:
            if ahead is not None:
                self._answer(ahead)
            await self._run_with_locks(batch)
            return None
        writing = asyncio.create_task(self._write(batch, batch.prepared))
        await asyncio.sleep(0)  # it is on its way
        if ahead is not None:
            self._answer(ahead)
            await asyncio.sleep(0)  # who was answered may ask again
        if not self._is_followed(batch):
            if await writing:
                self._answer(batch)
            else:
                await self._run_with_locks(batch)
            return None
        following = self._behind(batch)
        preparing = asyncio.create_task(self._prepare(following, batch.left()))
        is_written = await writing
        if is_written and not preparing.done():
            self._answer(batch)  # the other connection may be silent for long
        await preparing
        if not is_written:
            self._put_back(following)
            await self._run_with_locks(batch)
            return None
        return following

    def _is_followed(self, batch: _Batch) -> bool:
        """Whether many wait behind it, and nobody else does, who would wait as long as they ask.

        Not those who name holds: they need lots as they will be.
        """
        behind = [each.command for line in batch.lines for each in line.waiting]
        return (
            len(behind) >= FOLLOW_FROM
            and not self._queue.ready_operations
            and not self._dispatcher.has_to_share
            and not holds_named(behind)
        )

    def _behind(self, ahead: _Batch) -> _Batch:
        first, second = self._connections
        taken = self._queue.take_behind(ahead.lines, self._batch_max)
        return self._hold(_Batch(*taken, second if ahead.connection is first else first))

    async def _prepare(self, batch: _Batch, left: dict[uuid.UUID, Book]) -> None:
        """Read and decide it, on top of what a batch that is being written will have left."""
        if not batch.operations:  # whoever asked has given up
            return
        if self._locks_first:
            self._locks_first -= 1
            return
        try:
            with self._noticed_when_overdue():
                commands = [each.command for each in batch.operations]
                batch.prepared = await batch.connection.prepare(commands, left)
        except Exception as error:  # noqa: BLE001  the callers' edge: each gets its own error
            batch.error = error

    async def _write(self, batch: _Batch, prepared: Prepared) -> bool:
        """Write what was prepared; False where nothing was done."""
        try:
            with self._noticed_when_overdue():
                is_written = await batch.connection.write(prepared)
        except Exception as error:  # noqa: BLE001  the callers' edge: each gets its own error
            batch.error = error
            return False
        if not is_written:
            self._locks_first = LOCKS_FIRST_AFTER_CONFLICT
            return False
        return True

    def _answer(self, batch: _Batch) -> None:
        """Answer a batch that was written, unless that was done."""
        if batch.prepared is None or batch.is_answered:
            return
        batch.is_answered = True
        metrics.BATCH_SIZE.observe(len(batch.operations))
        self._queue.answer(batch.operations, batch.prepared.outcomes)
        attempts.note_answered(batch.operations)
        self._finish(batch)

    async def _run_with_locks(self, batch: _Batch) -> None:
        """Run it to its end: after an error in halves; users who are locked are parked."""
        arguments = self._queue, batch.connection, batch.operations, Locking.SKIP
        with self._noticed_when_overdue():
            if batch.error is None:
                skipped = await attempts.run(*arguments)
            else:
                metrics.BATCH_SIZE.observe(len(batch.operations))
                skipped = await attempts.run_again(*arguments, batch.error)
        self._finish(batch, self._queue.put_back(skipped))

    def _put_back(self, batch: _Batch) -> None:
        self._queue.put_back(batch.operations)
        self._finish(batch)

    def _finish(self, batch: _Batch, parked: Container[int] = ()) -> None:
        """Let its lines go; those of users somebody else has locked are tried apart."""
        self._held.remove(batch)
        if batch.span is not None:
            end_batch(batch.span, batch.error, was_guarded=batch.is_answered)
        for line in batch.lines:
            if line.user in parked:
                self._dispatcher.park(line)
            else:
                self._queue.let_go(line)

    @contextmanager
    def _noticed_when_overdue(self) -> Generator[None]:
        """Let other lanes do what this one would do next, if the block takes long."""
        is_overdue = False

        def note() -> None:
            nonlocal is_overdue
            is_overdue = True
            self._overdue += 1
            self._dispatcher.wake_lanes()

        timer = asyncio.get_running_loop().call_later(OVERDUE_AFTER_SECONDS, note)
        try:
            yield
        finally:
            timer.cancel()
            self._overdue -= is_overdue
