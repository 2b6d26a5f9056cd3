"""Ends a process's threads: asks them first, then cuts off what they wait for."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Shutdown:
    """Asked for once. Threads look whether it is, or run what is cancelled when it is."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._lock = threading.Lock()
        self._running: dict[asyncio.Task[Any], asyncio.AbstractEventLoop] = {}

    @property
    def is_asked(self) -> bool:
        """Whether threads shall end."""
        return self._asked.is_set()

    def wait(self, seconds: float) -> bool:
        """Rest for so long, or until it is asked for; whether it is."""
        return self._asked.wait(seconds)

    def ask(self) -> None:
        """Have everybody end. Not from a signal's handler, which may have interrupted this."""
        with self._lock:
            self._asked.set()
            for task, loop in self._running.items():
                loop.call_soon_threadsafe(task.cancel)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it in an event loop of this thread's own, until its end or until it is asked to.

        Raises:
            CancelledError: it was cut off.
        """

        async def run_unless_asked() -> T:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101  a coroutine runs in one
            with self._lock:
                self._running[task] = asyncio.get_running_loop()
                if self.is_asked:
                    task.cancel()
            try:
                return await work
            finally:
                with self._lock:
                    del self._running[task]

        return asyncio.run(run_unless_asked())
