"""Pools that prefer the connection which sees the wanted group's tables already.

A connection that is told of another group plans what it has prepared anew: that costs more than a
read. So a pool with room opens one more rather than turn one round.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool
from sqlalchemy.util import memoized_property
from sqlalchemy.util.queue import AsyncAdaptedQueue, Queue

from src.common.postgres.routes import SEEN, current_route

if TYPE_CHECKING:
    from collections import deque

    from sqlalchemy.pool import ConnectionPoolEntry

# SQLAlchemy's pools log by the name of their class, what they do all day: its own are kept quiet.
logging.getLogger(__name__).setLevel(logging.WARNING)


def _take(idle: "deque[ConnectionPoolEntry]") -> "ConnectionPoolEntry":
    """The first that sees what is wanted, or else the one that is idle for longest."""
    wanted = current_route()
    for place, entry in enumerate(idle):
        if entry.info.get(SEEN, ...) == wanted:
            del idle[place]
            return entry
    return idle.popleft()


def _has_preferred(idle: "deque[ConnectionPoolEntry]") -> bool:
    wanted = current_route()
    return any(entry.info.get(SEEN, ...) == wanted for entry in tuple(idle))


class _RoutedQueue(Queue["ConnectionPoolEntry"]):
    def _get(self) -> "ConnectionPoolEntry":
        return _take(self.queue)

    @property
    def idle(self) -> "deque[ConnectionPoolEntry]":
        return self.queue


class _AsyncioQueue(asyncio.Queue["ConnectionPoolEntry"]):
    _queue: "deque[ConnectionPoolEntry]"

    def _get(self) -> "ConnectionPoolEntry":
        return _take(self._queue)

    @property
    def idle(self) -> "deque[ConnectionPoolEntry]":
        return self._queue


class _AsyncRoutedQueue(AsyncAdaptedQueue["ConnectionPoolEntry"]):
    @memoized_property
    def _queue(self) -> _AsyncioQueue:
        return _AsyncioQueue(maxsize=self.maxsize)

    @property
    def idle(self) -> "deque[ConnectionPoolEntry]":
        return self._queue.idle


class _Opening(QueuePool):
    """Opens a connection, while it has room, where those that are idle see other groups."""

    _pool: Any

    def _do_get(self) -> "ConnectionPoolEntry":
        has_room = self._overflow < 0 and not _has_preferred(self._pool.idle)
        if not has_room or not self._inc_overflow():
            return super()._do_get()
        try:
            return self._create_connection()
        except BaseException:
            self._dec_overflow()
            raise


class RoutedPool(_Opening):
    """Of a sync engine."""

    _queue_class = _RoutedQueue


class AsyncRoutedPool(_Opening, AsyncAdaptedQueuePool):
    """Of an async engine."""

    _queue_class = _AsyncRoutedQueue
