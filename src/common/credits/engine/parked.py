"""Users whose rows somebody else has locked: tried apart, until their time-out.

As many as there are side lanes are waited for. Where more are locked, all the others are looked at
together, again and again and without waiting: whoever's row is free is served, however many are
not. A row that is found in other hands each time would never be found free: it is waited for in the
next side lane, since PostgreSQL gives it to those who wait in turn.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from src.common.credits.engine import attempts, metrics
from src.common.credits.engine.connection import EngineConnection
from src.common.credits.engine.queue import Line, Queue, Waiting
from src.common.credits.engine.traced import traced_batch
from src.common.credits.persistence.reading import Locking
from src.common.postgres.errors import LOCK_NOT_AVAILABLE, LOCK_NOT_GRANTED, RetryableDatabaseError
from src.common.settings import Settings

logger = structlog.get_logger(__name__)

LOOK_AFTER_SECONDS = (0.005, 0.1)
"""How soon, and how late, it is looked whether a row is free: after half the time it was locked."""
LOOKING_MAX = 0.1
"""The most of its time that is spent looking, which takes long where very many users are locked."""


@dataclass(slots=True)
class _Lock:
    """What is known of the lock on a user's row."""

    since: float
    holder: str | None = None
    """In whose hands it was, when it was looked at."""
    changes_hands: bool = False


class Parked:
    """Lines that wait for their users' rows; they go back to the queue once they are served."""

    def __init__(
        self,
        queue: Queue,
        connect: Callable[[], EngineConnection],
        start: Callable[[Coroutine[Any, Any, None]], None],
        settings: Settings,
    ) -> None:
        self._queue = queue
        self._connect = connect
        self._start = start
        self._batch_max = settings.credits_engine_batch_max
        self._timeout_seconds = settings.credits_engine_lock_timeout_ms / 1_000
        self._side_lanes_max = settings.credits_engine_side_lanes
        self._side_lanes = 0
        """How many are at work."""
        self._locks: dict[Line, _Lock] = {}
        """Of all lines that are here."""
        self._idle: dict[Line, None] = {}
        """Those in no side lane, the first to come first."""
        self._is_looking = False
        self._looks_late = False
        """Whether who comes now is to be looked at sooner than those who are here."""
        self._woken = asyncio.Event()

    def add(self, line: Line) -> None:
        """Have a line wait for its user's row."""
        self._locks[line] = _Lock(time.perf_counter())
        metrics.PARKED.set(len(self._locks))
        self._put_back([line])

    def _put_back(self, lines: Iterable[Line]) -> None:
        """Have lines wait, unless nobody waits in them any longer."""
        for line in lines:
            self._give_up(line)
            if line.waiting:
                self._idle[line] = None
            else:
                self._leave(line)
        while self._side_lanes < self._side_lanes_max and (next_one := self._next()) is not None:
            del self._idle[next_one]
            self._side_lanes += 1
            self._start(self._wait_for(next_one))
        if self._idle and not self._is_looking:
            self._is_looking = True
            self._start(self._look_again_and_again())
        if self._looks_late:
            self._woken.set()

    def _next(self) -> Line | None:
        """Who gets a side lane: of more than there are, only those whose row changes hands."""
        if len(self._locks) <= self._side_lanes_max:
            return next(iter(self._idle), None)
        return next((line for line in self._idle if self._locks[line].changes_hands), None)

    def _taken(self) -> list[Line]:
        taken = list(self._idle)
        self._idle.clear()
        return taken

    def _leave(self, line: Line) -> None:
        """Its row is free, or nobody wants it: the lanes may have it, unless they have ended."""
        if line.waiting and self._queue.is_closed:
            self.add(line)
            return
        del self._locks[line]
        metrics.PARKED.set(len(self._locks))
        self._queue.let_go(line)

    def _give_up(self, line: Line) -> None:
        """Tell those of a line who have waited for long enough."""
        while line.waiting:
            first = line.waiting[0]
            if not first.answer.done() and self._seconds_left(line, first) > 0:
                return
            error = RetryableDatabaseError(LOCK_NOT_AVAILABLE, None, LOCK_NOT_GRANTED)
            self._queue.fail([line.waiting.popleft()], error)

    def _seconds_left(self, line: Line, first: Waiting) -> float:
        """For how long the first of a line still waits: since it asked, once the row is locked."""
        begun = max(first.since, self._locks[line].since)
        return begun + self._timeout_seconds - time.perf_counter()

    async def _wait_for(self, line: Line) -> None:
        """Wait for one user's row, and do what has gathered for it, while others use the row.

        Where further users wait for a side lane, only once: then it is their turn.
        """
        connection = self._connect()
        batch: list[Waiting] = []
        skipped: list[Waiting] = []
        self._locks[line].changes_hands = False
        try:
            while batch := self._queue.first_of(line, self._batch_max):
                connection.limit_waiting(self._seconds_left(line, batch[0]))
                with traced_batch(batch):
                    skipped = await attempts.run(self._queue, connection, batch, Locking.WAIT)
                if skipped:
                    break
                self._locks[line].since = time.perf_counter()
                await asyncio.sleep(0)  # who was answered may ask again before the next batch
                others_wait = len(self._locks) > self._side_lanes_max
                if (others_wait or not connection.was_contended) and not self._queue.is_closed:
                    break
        except Exception as bug:  # the callers' edge: nobody waits for ever
            logger.exception("A side lane of the credits' engine failed by a bug")
            self._queue.fail(batch, bug)
            connection.drop()
        connection.close()
        self._side_lanes -= 1
        if skipped:
            self._queue.put_back(skipped)
            self._put_back([line])
        else:
            self._leave(line)
            self._put_back([])

    async def _look_again_and_again(self) -> None:
        """Serve those in no side lane whose rows are free, until there are none."""
        connection = self._connect()
        soon, late = LOOK_AFTER_SECONDS
        looked_at, took = time.perf_counter(), 0.0
        while True:
            self._put_back(self._taken())
            if not self._idle:
                break
            soonest = looked_at + max(soon, took / LOOKING_MAX)
            locked_for = looked_at - max(self._locks[line].since for line in self._idle)
            look_at = max(soonest, looked_at + min(locked_for / 2, late))
            seconds = look_at - time.perf_counter()
            if seconds <= 0:
                took = await self._look(connection)
                looked_at = time.perf_counter()
                continue
            left = min(self._seconds_left(line, line.waiting[0]) for line in self._idle)
            self._looks_late = look_at > soonest
            await self._sleep(min(seconds, left))
            self._looks_late = False
        self._is_looking = False
        connection.close()

    async def _sleep(self, seconds: float) -> None:
        """Sleep, unless somebody new is to be looked at."""
        self._woken.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()

    async def _look(self, connection: EngineConnection) -> float:
        """Serve those whose rows are free, and put the others back; how long looking took."""
        lines = self._taken()
        begun = time.perf_counter()
        holders = await connection.find_holders([line.waiting[0].command.user_id for line in lines])
        took = time.perf_counter() - begun
        for line in lines:
            lock, holder = self._locks[line], holders.get(line.user)
            lock.changes_hands |= lock.holder not in {None, holder}
            lock.holder = holder
        self._put_back(line for line in lines if line.user in holders)
        free = deque(line for line in lines if line.user not in holders)
        while free:
            await self._serve(connection, free)
        return took

    async def _serve(self, connection: EngineConnection, free: deque[Line]) -> None:
        """Take lines whose rows are free, until they make a batch, and run it."""
        batch: list[Waiting] = []
        served: list[Line] = []
        while free and len(batch) < self._batch_max:
            served.append(free.popleft())
            batch += self._queue.first_of(served[-1], self._batch_max - len(batch))
        locked: set[int] = set()
        try:
            with traced_batch(batch):
                skipped = await attempts.run(self._queue, connection, batch, Locking.SKIP)
            locked = self._queue.put_back(skipped)
        except Exception as bug:  # the callers' edge: nobody waits for ever
            logger.exception("A side lane of the credits' engine failed by a bug")
            self._queue.fail(batch, bug)
            connection.drop()
        for line in served:
            if line.user not in locked:
                self._leave(line)
        self._put_back(line for line in served if line.user in locked)
