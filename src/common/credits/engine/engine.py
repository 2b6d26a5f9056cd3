"""The batch engine: one database transaction for many callers at once.

    async with Engine.from_settings(get_settings()) as engine:
        await engine.spend(user_id, 30, key=f"slides:{job_id}", actor="key:renderer")

Operations that arrive while a batch is written are the next batch. There is no timer: where nobody
else waits, an operation goes at once. Every caller gets its own result or refusal. A user's
operations are done in the order of their arrival.

The rules, the locks and the statements are the ledger's own (`batches.py`). So several engines,
sessions and other programs may write side by side (decision 0017).
"""

import asyncio
import os
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, Self

import structlog

from src.common import tracing
from src.common.credits import requests
from src.common.credits.domain.commands import Command, Result
from src.common.credits.engine.connection import EngineConnection
from src.common.credits.engine.lane import Lane
from src.common.credits.engine.parked import Parked
from src.common.credits.engine.queue import Line, Queue, Room
from src.common.credits.engine.traced import note_caller
from src.common.database_settings import Sharding
from src.common.postgres.disposal import Connections, dispose_async
from src.common.postgres.engines import begin_statement, build_lanes_engine
from src.common.postgres.routes import current_route
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
        return await engine.execute(word(*args, **kwargs))

    run.__name__ = run.__qualname__ = word.__name__
    run.__doc__ = word.__doc__
    return run


class Entrance(Protocol):
    """Where operations are asked for: a queue, or what finds the queue of a user's group."""

    def add(self, command: Command, answer: "asyncio.Future[Result]") -> None:
        """As of `Queue`."""
        ...

    def note_given_up(self) -> None:
        """As of `Queue`."""
        ...

    @property
    def length(self) -> int:
        """As of `Queue`."""
        ...


class _Answer(asyncio.Future[Result]):
    """A future that tells when it is given up; awaiting it costs more than a plain one."""

    __slots__ = ("queue",)
    queue: Entrance

    def cancel(self, msg: Any | None = None) -> bool:
        """Give it up."""
        is_cancelled = super().cancel(msg)
        if is_cancelled:
            self.queue.note_given_up()
        return is_cancelled


class Engine:
    """Does operations of many callers in few database transactions, of its own.

    Start it in an event loop with `async with`, and use it from any number of that loop's tasks.
    It belongs to that loop and that process: a forked child cannot use it.

    `grant`, `spend`, `adjust`, `open_hold`, `capture`, `release`, `renew` and `reverse` are
    coroutines. They take the parameters of their namesakes in `requests.py`, without a session.
    They return the `Result` once it is committed, and raise what `execute` raises.
    """

    grant = _operation(requests.grant)
    spend = _operation(requests.spend)
    adjust = _operation(requests.adjust)
    open_hold = _operation(requests.open_hold)
    capture = _operation(requests.capture)
    release = _operation(requests.release)
    renew = _operation(requests.renew)
    reverse = _operation(requests.reverse)

    def __init__(
        self, connections: Connections, settings: Settings, room: Room | None = None
    ) -> None:
        self._connections = connections
        self._begin = begin_statement(settings, current_route())
        self._statement_timeout_ms = settings.database_statement_timeout_ms
        self._queue = Queue(room or Room(settings.credits_engine_queue_max), self.wake_lanes)
        self._lanes = [
            Lane(
                self._queue,
                self,
                (self._connection(), self._connection()),
                settings.credits_engine_batch_max,
            )
            for _ in range(settings.credits_engine_lanes)
        ]
        self._entrance: Entrance = self._queue
        self._parked = Parked(self._queue, self._connection, self._start, settings)
        self._tasks: set[asyncio.Task[None]] = set()

    @staticmethod
    def from_settings(settings: Settings) -> "Engine":
        """An engine with connections of its own; nothing is connected yet.

        It opens two connections for each of `CREDITS_ENGINE_LANES`, one for each of
        `CREDITS_ENGINE_SIDE_LANES`, and one more, as it needs them; so many for each group of users
        that is busy, where these have schemas.
        """
        connections = build_lanes_engine(settings)
        if settings.sharding is Sharding.NONE:
            return Engine(connections, settings)
        from src.common.credits.engine.groups import GroupsEngine

        return GroupsEngine(connections, settings)

    async def __aenter__(self) -> Self:
        _started.add(self)
        self.open()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.aclose()

    def open(self) -> None:
        """Have the lanes begin; they see the tables that their task's context is routed to."""
        self._queue.is_closed = False
        for lane in self._lanes:
            self._start(lane.run())

    async def aclose(self) -> None:
        """Refuse new operations, finish those that wait, close the connections."""
        await self.finish()
        await dispose_async(self._connections)

    async def finish(self) -> None:
        """Refuse new operations, and finish those that wait."""
        self._queue.is_closed = True
        for lane in self._lanes:
            lane.wake()
        while self._tasks:
            await asyncio.wait(self._tasks)  # who gives up waiting does not cancel them

    async def execute(self, command: Command) -> Result:
        """Do one command in the next batch, and return its result once that is committed.

        The operation of a caller who is cancelled may be committed all the same. Asking again with
        the same key tells.

        Raises:
            ExceptionWithErrorType: The refusals that `requests.py` names for each operation.
                VALIDATION_ERROR, `command` is none that callers give.
            EngineBusy: ENGINE_BUSY, the queue is full or the engine does not run; nothing was done.
            RetryableDatabaseError: A passing condition of the database. Where the connection was
                lost the operation may have been committed: ask again with the same key.
        """
        asked = requests.of_caller(command)
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._entrance.add(asked, answer)
        if tracing.is_on():
            note_caller(answer)
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.cancelled():
                self._entrance.note_given_up()
            raise

    def submit(self, command: Command) -> "asyncio.Future[Result]":
        """As `execute`, without waiting: the future has the result, or what `execute` would raise.

        Cancelling the future takes the operation out of the queue, unless its batch has begun.

        Raises:
            EngineBusy: ENGINE_BUSY.
            Invalid: VALIDATION_ERROR, `command` is none that callers give.
        """
        asked = requests.of_caller(command)
        answer = _Answer(loop=asyncio.get_running_loop())
        answer.queue = self._entrance
        self._entrance.add(asked, answer)
        if tracing.is_on():
            note_caller(answer)
        return answer

    @property
    def operations_waiting(self) -> int:
        """How many operations wait or are under way."""
        return self._entrance.length

    def is_worth_a_lane(self, lane: Lane) -> bool:
        """Whether a lane that does nothing should take what is ready.

        The only one at once, a further one for many operations only: a good part of what a batch
        costs does not depend on its size. Who hangs does not count.
        """
        ready = self._queue.ready_operations
        if not ready:
            return False
        if (ready >= FURTHER_LANE_FROM and self.may_work_beside) or self._queue.is_closed:
            return True
        return not any(other.is_working for other in self._lanes if other is not lane)

    @property
    def may_work_beside(self) -> bool:
        """Whether a further lane may work beside one that works already."""
        return True

    @property
    def lanes_working(self) -> int:
        """How many lanes have a batch that does not hang."""
        return sum(lane.is_working for lane in self._lanes)

    def leave_to_parent(self) -> None:
        """In a forked child: the lanes work in the parent's event loop, nobody here is answered."""
        self._queue.is_closed = True
        self._tasks.clear()

    def share(self) -> int:
        """How many operations a lane that does nothing should take: others were woken too."""
        lanes = 1 + sum(lane.is_woken for lane in self._lanes)
        return -(-self._queue.ready_operations // lanes)

    @property
    def has_to_share(self) -> bool:
        """Whether somebody else waits for a connection of those that lanes keep."""
        return False

    def give_back_idle(self) -> None:
        """Have lanes that do nothing give their connections back."""
        for lane in self._lanes:
            if lane.is_asleep:
                lane.give_back()

    def wake_lanes(self) -> None:
        """Wake a lane that is needed for what is ready, if there is one."""
        for lane in self._lanes:
            if lane.is_asleep and self.is_worth_a_lane(lane):
                lane.wake()
                break

    def park(self, line: Line) -> None:
        """Have a line tried apart whose user somebody else has locked."""
        self._parked.add(line)

    def _connection(self) -> EngineConnection:
        return EngineConnection(self._connections, self._begin, self._statement_timeout_ms)

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
