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

SECOND_LANE_FROM = 16
"""From how many waiting operations on a further lane works beside one that works already."""
OVERDUE_AFTER_SECONDS = 0.1
"""When a batch that is not back yet no longer keeps a further lane from working."""
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


class _Line:
    """One user's operations in the order of asking; while some are under way, the others wait."""

    __slots__ = ("is_taken", "user", "waiting")

    def __init__(self, user: int) -> None:
        self.user = user
        self.waiting: deque[_Waiting] = deque()
        self.is_taken = False


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
        self._lanes = settings.credits_engine_lanes
        self._side_lanes_max = settings.credits_engine_side_lanes
        self._side_lanes = asyncio.Semaphore(self._side_lanes_max)
        self._lines: dict[int, _Line] = {}
        """Everybody who waits or is under way, by the user's id as a number, which hashes fast."""
        self._ready: deque[_Line] = deque()
        """Lines that no lane has taken, in the order of their first operation."""
        self._ready_operations = 0
        self._idle: deque[asyncio.Future[None]] = deque()
        """Lanes that sleep."""
        self._woken = 0
        """Those that were woken and have not looked yet."""
        self._overdue: set[EngineConnection] = set()
        """Those of lanes whose batch hangs: at a row, or at a server that is gone."""
        self._parked_users = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way = 0
        self._is_closing = True

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """An engine with connections of its own; nothing is connected yet."""
        return cls(build_lanes_engine(settings), settings)

    async def __aenter__(self) -> Self:
        self._is_closing = False
        for _ in range(self._lanes):
            self._start(self._run_lane())
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Refuse new operations, finish those that wait, close the connections."""
        self._is_closing = True
        while self._idle:
            self._wake_a_lane()
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
        self._under_way += 1
        user = command.user_id.int
        line = self._lines.get(user)
        if line is None:
            line = self._lines[user] = _Line(user)
            self._ready.append(line)
        line.waiting.append(_Waiting(command, answer, time.perf_counter()))
        if not line.is_taken:
            self._ready_operations += 1
            self._wake_if_worth_it()
        return answer

    def _is_worth_a_lane(self, working: int) -> bool:
        """Whether a lane should take what is ready while `working` others work.

        The only one at once, a further one for many operations only: a good part of what a batch
        costs does not depend on its size. Who hangs does not count.
        """
        working -= len(self._overdue)
        return not working or self._ready_operations >= SECOND_LANE_FROM or self._is_closing

    def _wake_if_worth_it(self) -> None:
        if self._idle and self._is_worth_a_lane(self._lanes - len(self._idle)):
            self._wake_a_lane()

    def _wake_a_lane(self) -> None:
        self._idle.popleft().set_result(None)
        self._woken += 1

    async def _run_lane(self) -> None:
        """Work lines off on one connection, batch by batch, until the engine closes."""
        loop = asyncio.get_running_loop()
        connection = EngineConnection(self._connections, self._begin)
        while self._ready or not self._is_closing:
            if self._ready and self._is_worth_a_lane(self._lanes - 1 - len(self._idle)):
                lines, batch = self._take()
                overdue = loop.call_later(OVERDUE_AFTER_SECONDS, self._replace, connection)
                skipped = await self._process(connection, batch, Locking.SKIP)
                overdue.cancel()
                self._overdue.discard(connection)
                self._put_back(lines, skipped)
                await asyncio.sleep(0)  # who was answered may ask again before the next batch
            else:
                engine_metrics.QUEUED.set(self._under_way)
                sleep = loop.create_future()
                self._idle.append(sleep)
                await sleep
                self._woken -= 1
        connection.close()

    def _replace(self, overdue: EngineConnection) -> None:
        """Let another lane do what this one would do next."""
        self._overdue.add(overdue)
        if self._ready:
            self._wake_if_worth_it()

    async def _run_parked(self, line: _Line) -> None:
        """Wait for one user's row, and do what has gathered for it, while others use the row.

        Where further users wait for a side lane, only once: then it is their turn.
        """
        async with self._side_lanes:
            connection = EngineConnection(self._connections, self._begin)
            while batch := self._of(line, self._batch_max):
                await self._process(connection, batch, Locking.WAIT)
                await asyncio.sleep(0)
                others_wait = self._parked_users > self._side_lanes_max
                if (others_wait or not connection.was_contended) and not self._is_closing:
                    break
            connection.close()
        self._parked_users -= 1
        engine_metrics.PARKED.set(self._parked_users)
        self._release(line)

    def _take(self) -> tuple[list[_Line], list[_Waiting]]:
        """The next batch: whole lines where they fit; lanes just woken get their share."""
        share = min(-(-self._ready_operations // (1 + self._woken)), self._batch_max)
        lines: list[_Line] = []
        batch: list[_Waiting] = []
        while self._ready and len(batch) < share:
            line = self._ready.popleft()
            line.is_taken = True
            lines.append(line)
            self._ready_operations -= len(line.waiting)
            batch += self._of(line, self._batch_max - len(batch))
        return lines, batch

    def _of(self, line: _Line, number: int) -> list[_Waiting]:
        """The first of a line, without those whom nobody awaits any more."""
        first: list[_Waiting] = []
        while line.waiting and len(first) < number:
            waiting = line.waiting.popleft()
            if waiting.answer.done():
                self._under_way -= 1
            else:
                first.append(waiting)
        return first

    def _put_back(self, lines: Iterable[_Line], skipped: Sequence[_Waiting]) -> None:
        """Let others have these lines; those of the skipped are parked, in the old order."""
        parked: set[int] = set()
        for waiting in reversed(skipped):
            user = waiting.command.user_id.int
            self._lines[user].waiting.appendleft(waiting)
            parked.add(user)
        for line in lines:
            if line.user in parked:
                self._parked_users += 1
                self._start(self._run_parked(line))
            else:
                self._release(line)
        engine_metrics.PARKED.set(self._parked_users)

    def _release(self, line: _Line) -> None:
        if not line.waiting:
            del self._lines[line.user]
            return
        line.is_taken = False
        self._ready.append(line)
        self._ready_operations += len(line.waiting)
        self._wake_if_worth_it()

    async def _process(
        self,
        connection: EngineConnection,
        batch: Sequence[_Waiting],
        locking: Locking,
        attempt: int = 1,
    ) -> list[_Waiting]:
        """Run a batch and answer everybody in it but the skipped, which come back.

        One that fails is run again in halves.
        """
        if not batch:
            return []
        engine_metrics.QUEUED.set(self._under_way)
        engine_metrics.BATCH_SIZE.observe(len(batch))
        try:
            outcomes = await connection.run([each.command for each in batch], locking)
        except Exception as error:  # noqa: BLE001  the callers' edge: each gets its own error
            if connection.was_lost or not _is_run_again(error, len(batch), attempt):
                self._fail(batch, error)
                return []
            engine_metrics.FAILED_BATCHES.inc()
            middle = (len(batch) + 1) // 2
            attempt += len(batch) == 1
            skipped = await self._process(connection, batch[:middle], locking, attempt)
            # Whom the first half skipped would overtake himself in the second.
            users = {each.command.user_id for each in skipped}
            others = [each for each in batch[middle:] if each.command.user_id not in users]
            again = await self._process(connection, others, locking, attempt)
            skipped += [each for each in batch[middle:] if each.command.user_id in users]
            return skipped + again
        skipped = self._answer(batch, outcomes)
        engine_metrics.SECONDS.observe(time.perf_counter() - batch[0].since)
        return skipped

    def _answer(
        self, batch: Sequence[_Waiting], outcomes: Iterable[Outcome | Skipped]
    ) -> list[_Waiting]:
        skipped: list[_Waiting] = []
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Skipped):
                skipped.append(waiting)
                continue
            self._under_way -= 1
            if waiting.answer.done():
                continue
            if isinstance(outcome, Result):
                waiting.answer.set_result(outcome)
            else:
                waiting.answer.set_exception(outcome)
        return skipped

    def _fail(self, batch: Sequence[_Waiting], error: Exception) -> None:
        for waiting in batch:
            self._under_way -= 1
            if not waiting.answer.done():
                waiting.answer.set_exception(error)

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
