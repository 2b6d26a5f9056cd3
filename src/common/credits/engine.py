"""The batch engine: any number of callers, one database transaction for all who wait.

    async with Engine.from_settings(get_settings()) as engine:
        await engine.spend(user_id, 30, key=f"slides:{job_id}", actor="key:renderer")

Operations that arrive while a batch commits travel together in the next one; nobody waits for a
timer, so an idle system has the latency of one operation. Every caller gets exactly its own result
or refusal, a user's operations in the order of their arrival. The rules, the locks and the
statements are the ledger's own (`batches.py`), so several engines, sessions and other programs
write side by side (decision 0017).
"""

import asyncio
import os
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Self

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from src.common.credits import engine_attempts, engine_metrics, requests
from src.common.credits.commands import Command, Result
from src.common.credits.engine_connection import EngineConnection
from src.common.credits.engine_lane import Lane
from src.common.credits.engine_queue import Line, Queue, Waiting
from src.common.credits.statements import Locking
from src.common.engines import begin_statement, build_lanes_engine
from src.common.settings import Settings

P = ParamSpec("P")

logger = structlog.get_logger(__name__)

_started: "weakref.WeakSet[Engine]" = weakref.WeakSet()

FURTHER_LANE_FROM = 16
"""From how many waiting operations on a further lane works beside one that works already."""


def _operation(
    word: Callable[P, Command],
) -> Callable[Concatenate["Engine", P], Coroutine[Any, Any, Result]]:
    """The command that `word` makes of its arguments, done in the next batch."""

    async def run(engine: "Engine", /, *args: P.args, **kwargs: P.kwargs) -> Result:
        return await engine.submit(word(*args, **kwargs))

    run.__name__ = run.__qualname__ = word.__name__
    run.__doc__ = word.__doc__
    return run


class Engine:
    """Start it in an event loop, use it from any number of that loop's tasks, close it.

    `grant`, `spend` and so on take what their namesakes of `ledger.py` take, without a session.
    """

    grant = _operation(requests.grant)
    spend = _operation(requests.spend)
    adjust = _operation(requests.adjust)
    open_hold = _operation(requests.open_hold)
    capture = _operation(requests.capture)
    release = _operation(requests.release)
    renew = _operation(requests.renew)

    def __init__(self, connections: AsyncEngine, settings: Settings) -> None:
        self._connections = connections
        self._begin = begin_statement(settings)
        self._batch_max = settings.credits_engine_batch_max
        self._queue = Queue(settings.credits_engine_queue_max, self.wake_lanes)
        self._lanes = [
            Lane(self._queue, self, (self._connection(), self._connection()), self._batch_max)
            for _ in range(settings.credits_engine_lanes)
        ]
        self._side_lanes_max = settings.credits_engine_side_lanes
        self._side_lanes = asyncio.Semaphore(self._side_lanes_max)
        self._parked_users = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """An engine with connections of its own; nothing is connected yet."""
        return cls(build_lanes_engine(settings), settings)

    async def __aenter__(self) -> Self:
        _started.add(self)
        self._queue.is_closed = False
        for lane in self._lanes:
            self._start(lane.run())
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Refuse new operations, finish those that wait, close the connections."""
        self._queue.is_closed = True
        for lane in self._lanes:
            lane.wake()
        while self._tasks:
            await asyncio.wait(self._tasks)  # who gives up waiting does not cancel them
        await self._connections.dispose()

    async def execute(self, command: Command) -> Result:
        """Do one command with whoever else waits, and answer once it is committed.

        A caller who is cancelled may find that its operation commits all the same: its key tells.

        Raises:
            ExceptionWithErrorType: the refusals of `errors.py`; VALIDATION_ERROR, no command.
            EngineBusy: ENGINE_BUSY, the queue is full or the engine does not run; nothing was done.
            RetryableDatabaseError: a passing condition. Where the connection was lost the operation
                may have been committed: ask again with the same key.
        """
        return await self._queue.add(requests.of_caller(command))

    def submit(self, command: Command) -> "asyncio.Future[Result]":
        """Put a command into the queue; the future is what `execute` would answer or raise.

        Raises:
            EngineBusy: ENGINE_BUSY.
            Invalid: VALIDATION_ERROR, this is no command that callers give.
        """
        return self._queue.add(requests.of_caller(command))

    def is_worth_a_lane(self, lane: Lane) -> bool:
        """Whether a lane that does nothing should take what is ready.

        The only one at once, a further one for many operations only: a good part of what a batch
        costs does not depend on its size. Who hangs does not count.
        """
        ready = self._queue.ready_operations
        if not ready:
            return False
        if ready >= FURTHER_LANE_FROM or self._queue.is_closed:
            return True
        return not any(other.is_working for other in self._lanes if other is not lane)

    def leave_to_parent(self) -> None:
        """In a forked child: the lanes work in the parent's event loop, nobody here is answered."""
        self._queue.is_closed = True
        self._tasks.clear()

    def share(self) -> int:
        """How many operations a lane that does nothing should take: others were woken too."""
        lanes = 1 + sum(lane.is_woken for lane in self._lanes)
        return -(-self._queue.ready_operations // lanes)

    def wake_lanes(self) -> None:
        """Wake a lane that is needed for what is ready, if there is one."""
        for lane in self._lanes:
            if lane.is_asleep and self.is_worth_a_lane(lane):
                lane.wake()
                break

    def park(self, line: Line) -> None:
        """Have a line tried apart whose user somebody else has locked."""
        self._parked_users += 1
        engine_metrics.PARKED.set(self._parked_users)
        self._start(self._run_parked(line))

    async def _run_parked(self, line: Line) -> None:
        """Wait for one user's row, and do what has gathered for it, while others use the row.

        Where further users wait for a side lane, only once: then it is their turn.
        """
        async with self._side_lanes:
            connection = self._connection()
            batch: list[Waiting] = []
            try:
                while batch := self._queue.first_of(line, self._batch_max):
                    await engine_attempts.run(self._queue, connection, batch, Locking.WAIT)
                    await asyncio.sleep(0)  # who was answered may ask again before the next batch
                    others_wait = self._parked_users > self._side_lanes_max
                    if (others_wait or not connection.was_contended) and not self._queue.is_closed:
                        break
            except Exception as bug:  # the callers' edge: nobody waits for ever
                logger.exception("A side lane of the credits' engine failed by a bug")
                self._queue.fail(batch, bug)
                connection.drop()
            connection.close()
        self._parked_users -= 1
        engine_metrics.PARKED.set(self._parked_users)
        self._queue.let_go(line)

    def _connection(self) -> EngineConnection:
        return EngineConnection(self._connections, self._begin)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            logger.error("A task of the credits' engine ended by a bug", exc_info=bug)


def _leave_to_parent() -> None:
    for engine in list(_started):
        engine.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)
