"""No operation at all: what the worker's own loop costs, which is part of every figure."""

import asyncio

from benchmarks.calls.base import AsyncCalls
from benchmarks.workload import Operation


class Nothing(AsyncCalls):
    """Answers at once, after a turn of the event loop."""

    def __init__(self) -> None:
        self._last: dict[int, str] = {}

    async def open(self, callers: int) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to close."""

    async def call(self, caller: int, operation: Operation) -> bool:
        """Let the others run, and say whether the key came twice in a row."""
        await asyncio.sleep(0)
        replayed = self._last.get(caller) == operation.key
        self._last[caller] = operation.key
        return replayed
