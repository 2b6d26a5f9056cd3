"""What takes long to read is read for everybody at most once in a while, beside the requests."""

import asyncio
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from fastapi.concurrency import run_in_threadpool

T = TypeVar("T")

REST_SHARE = 20
"""After reading, at least so many times as long nothing is read: the more there is to read, the
older what is known may be, and the database is at it for a twentieth of the time at most."""
PATIENCE_SECONDS = 2.0
"""How long a page waits where nothing is known yet."""


class Known(Generic[T]):
    """The newest that this process knows. While it is read anew, pages show what there is."""

    def __init__(self, read: Callable[[], T], *, fresh_seconds: float) -> None:
        self._read_now = read
        self._fresh_seconds = fresh_seconds
        self._known: T | None = None
        self._fresh_until = 0.0
        self._reading: asyncio.Task[T] | None = None

    async def get(self) -> T | None:
        """What is known; None where nothing is within `PATIENCE_SECONDS`.

        Raises:
            Exception: what reading raises, where nothing is known of before.
        """
        if self._known is not None and time.monotonic() < self._fresh_until:
            return self._known
        reading = self._reading or asyncio.create_task(self._read())
        self._reading = reading
        await asyncio.wait({reading}, timeout=PATIENCE_SECONDS if self._known is None else 0)
        if not reading.done():
            return self._known
        if self._reading is reading:
            self._reading = None
        if reading.exception() is None or self._known is None:
            return reading.result()
        return self._known

    async def _read(self) -> T:
        began = time.monotonic()
        found = await run_in_threadpool(self._read_now)
        ended = time.monotonic()
        self._known = found
        self._fresh_until = ended + max(self._fresh_seconds, REST_SHARE * (ended - began))
        return found
