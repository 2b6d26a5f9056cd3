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
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Concatenate, NamedTuple, ParamSpec, Self

from sqlalchemy.ext.asyncio import AsyncEngine

from src.common.credits import engine_metrics, requests
from src.common.credits.batches import Skipped
from src.common.credits.commands import Command, Result
from src.common.credits.decisions import Outcome
from src.common.credits.engine_connection import EngineConnection
from src.common.credits.statements import Locking
from src.common.engines import begin_statement, build_lanes_engine
from src.common.exceptions import RetryableDatabaseError, Unavailable
from src.common.retries import is_worth_retrying
from src.common.settings import Settings

P = ParamSpec("P")

ATTEMPTS_MAX = 3
"""How often one operation alone is tried against deadlocks and the like."""


class EngineBusy(Unavailable):
    """Too many operations wait already, or the engine does not run; nothing was done."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "ENGINE_BUSY")


class _Waiting(NamedTuple):
    command: Command
    answer: "asyncio.Future[Result]"
    since: float


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
        self._queue_max = settings.credits_engine_queue_max
        self._queues: list[deque[_Waiting]] = [
            deque() for _ in range(settings.credits_engine_lanes)
        ]
        self._arrivals = [asyncio.Event() for _ in self._queues]
        self._parked: dict[uuid.UUID, deque[_Waiting]] = {}
        self._side_lanes = asyncio.Semaphore(settings.credits_engine_side_lanes)
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way = 0
        self._is_closing = True

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """An engine with connections of its own; nothing is connected yet."""
        return cls(build_lanes_engine(settings), settings)

    async def __aenter__(self) -> Self:
        self._is_closing = False
        for queue, arrival in zip(self._queues, self._arrivals, strict=True):
            self._start(self._run_lane(queue, arrival))
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Refuse new operations, finish those that wait, close the connections."""
        self._is_closing = True
        for arrival in self._arrivals:
            arrival.set()
        while self._tasks:
            await asyncio.wait(self._tasks)  # who gives up waiting does not cancel them
        await self._connections.dispose()

    async def execute(self, command: Command) -> Result:
        """Do one command with whoever else waits, and answer once it is committed.

        A caller who is cancelled may find that its operation commits all the same: its key tells.

        Raises:
            ExceptionWithErrorType: the refusals of `errors.py`.
            EngineBusy: ENGINE_BUSY, the queue is full or the engine does not run; nothing was done.
            RetryableDatabaseError: a passing condition. Where the connection was lost the operation
                may have been committed: ask again with the same key.
        """
        return await self.submit(command)

    def submit(self, command: Command) -> "asyncio.Future[Result]":
        """Put a command into the queue; the future is what `execute` would answer or raise.

        Raises:
            EngineBusy: ENGINE_BUSY.
        """
        if self._is_closing:
            raise EngineBusy("The engine is not running; try again shortly.")
        if self._under_way >= self._queue_max:
            raise EngineBusy("Too many operations wait already; try again shortly.")
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(command, answer, time.perf_counter())
        self._under_way += 1
        # One user's operations all go through one lane, those of a parked user too: in order, and
        # no lane waits for another.
        lane = hash(command.user_id) % len(self._queues)
        self._queues[lane].append(waiting)
        self._arrivals[lane].set()
        return answer

    async def _run_lane(self, queue: deque[_Waiting], arrival: asyncio.Event) -> None:
        """Work a queue off on one connection, batch by batch, until the engine closes."""
        connection = EngineConnection(self._connections, self._begin)
        while queue or not self._is_closing:
            arrival.clear()
            if batch := self._take(queue):
                await self._process(connection, batch, Locking.SKIP)
            elif not queue and not self._is_closing:
                engine_metrics.QUEUED.set(self._under_way)
                await arrival.wait()
        connection.close()

    async def _run_parked(self, user_id: uuid.UUID) -> None:
        """Wait for one user's row, and do all that has gathered for it."""
        queue = self._parked[user_id]
        async with self._side_lanes:
            connection = EngineConnection(self._connections, self._begin)
            while batch := self._take(queue):
                await self._process(connection, batch, Locking.WAIT)
            del self._parked[user_id]
            engine_metrics.PARKED.set(len(self._parked))
            connection.close()

    def _take(self, queue: deque[_Waiting]) -> list[_Waiting]:
        """The next batch: what waits, up to the limit.

        Not those whom nobody awaits any more, and not users who were parked meanwhile.
        """
        batch: list[_Waiting] = []
        while queue and len(batch) < self._batch_max:
            waiting = queue.popleft()
            parked = self._parked.get(waiting.command.user_id, queue) if self._parked else queue
            if waiting.answer.done():
                self._under_way -= 1
            elif parked is not queue:
                parked.append(waiting)
            else:
                batch.append(waiting)
        return batch

    async def _process(
        self,
        connection: EngineConnection,
        batch: Sequence[_Waiting],
        locking: Locking,
        attempt: int = 1,
    ) -> None:
        """Run a batch and answer everybody in it; one that fails is run again in halves."""
        engine_metrics.QUEUED.set(self._under_way)
        engine_metrics.BATCH_SIZE.observe(len(batch))
        try:
            outcomes = await connection.run([each.command for each in batch], locking)
        except Exception as error:  # noqa: BLE001  the callers' edge: each gets its own error
            if connection.was_lost or not _is_run_again(error, len(batch), attempt):
                self._fail(batch, error)
                return
            engine_metrics.FAILED_BATCHES.inc()
            middle = (len(batch) + 1) // 2
            for half in (batch[:middle], batch[middle:]):
                if again := half if locking is Locking.WAIT else self._not_parked(half):
                    await self._process(connection, again, locking, attempt + (len(batch) == 1))
            return
        self._answer(batch, outcomes)
        engine_metrics.SECONDS.observe(time.perf_counter() - batch[0].since)

    def _answer(self, batch: Sequence[_Waiting], outcomes: Iterable[Outcome | Skipped]) -> None:
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Skipped):
                self._park(waiting)
                continue
            self._under_way -= 1
            if waiting.answer.done():
                continue
            if isinstance(outcome, Result):
                waiting.answer.set_result(outcome)
            else:
                waiting.answer.set_exception(outcome)

    def _fail(self, batch: Sequence[_Waiting], error: Exception) -> None:
        for waiting in batch:
            self._under_way -= 1
            if not waiting.answer.done():
                waiting.answer.set_exception(error)

    def _park(self, waiting: _Waiting) -> None:
        """Try a user whose row somebody else keeps locked apart, so that nobody waits behind."""
        user_id = waiting.command.user_id
        if user_id not in self._parked:
            self._parked[user_id] = deque()
            engine_metrics.PARKED.set(len(self._parked))
            self._start(self._run_parked(user_id))
        self._parked[user_id].append(waiting)

    def _not_parked(self, batch: Sequence[_Waiting]) -> list[_Waiting]:
        """Those whose users are not; the others join what was parked before them."""
        for waiting in batch:
            if waiting.command.user_id in self._parked:
                self._park(waiting)
        return [each for each in batch if each.command.user_id not in self._parked]

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_run_again(error: Exception, size: int, attempt: int) -> bool:
    """Whether to run a failed batch of this size again, in halves, or one operation alone.

    A passing condition is the database's, not one operation's: waiting for it once for each would
    take as often as long. Unless the server says that trying again may help.
    """
    if isinstance(error, RetryableDatabaseError):
        return is_worth_retrying(error) and (size > 1 or attempt < ATTEMPTS_MAX)
    return size > 1
