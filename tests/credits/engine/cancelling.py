"""Cancel a task after any number of the event loop's steps, so that every moment has its turn.

A step is one piece of any task's code, up to its next `await` that has to wait. What a task does is
the same each time, so cancelling after the first step, the second and so on misses no moment.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any


class Cancel(StrEnum):
    """Who is cancelled."""

    CALLER = "the caller"
    CALLER_FOR_EVER = "the caller, with every further step again"
    EVERY_TASK = "every task"


class _Counted(Coroutine[Any, Any, Any]):
    """A coroutine that tells after each of its steps."""

    def __init__(self, coroutine: Any, on_step: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._on_step = on_step

    def send(self, value: Any) -> Any:
        """One step."""
        waits_for = self._coroutine.send(value)
        self._on_step()
        return waits_for

    def throw(self, *error: Any) -> Any:
        """One step that begins with an error."""
        waits_for = self._coroutine.throw(*error)
        self._on_step()
        return waits_for

    def close(self) -> None:
        """End it."""
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        raise NotImplementedError  # tasks send


@contextmanager
def steps_told(on_step: Callable[[], None]) -> Generator[None]:
    """Tell of every step of every task that is made in the block."""
    loop = asyncio.get_running_loop()

    def make_task(
        loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> "asyncio.Task[Any]":
        return asyncio.Task(_Counted(coroutine, on_step), loop=loop, **options)

    loop.set_task_factory(make_task)
    try:
        yield
    finally:
        loop.set_task_factory(None)


async def cancelled_after(
    steps: int, cancel: Cancel, work: Callable[[], Coroutine[Any, Any, None]]
) -> bool:
    """Run `work` in a task and cancel after so many steps; whether it took as many."""
    mine = asyncio.all_tasks()
    taken = 0

    def on_step() -> None:
        nonlocal taken
        taken += 1
        if taken == steps or (taken > steps and cancel is Cancel.CALLER_FOR_EVER):
            every = cancel is Cancel.EVERY_TASK
            for task in asyncio.all_tasks() - mine if every else {caller}:
                task.cancel()

    with steps_told(on_step):
        caller = asyncio.create_task(work())
        await asyncio.wait([caller])
    if taken < steps:
        caller.result()
        return False
    assert caller.cancelled()
    return True


def run_in_a_loop_that_ends_after(
    steps: int, work: Callable[[], Coroutine[Any, Any, None]]
) -> bool:
    """Run `work` in a task of a loop of its own, which shuts down after so many steps."""
    took_as_many = True

    async def main() -> None:
        nonlocal took_as_many
        taken = 0
        is_enough = asyncio.Event()

        def on_step() -> None:
            nonlocal taken
            taken += 1
            if taken == steps:
                is_enough.set()

        with steps_told(on_step):
            caller = asyncio.create_task(work())
            ending = asyncio.create_task(is_enough.wait())
            await asyncio.wait([caller, ending], return_when=asyncio.FIRST_COMPLETED)
            took_as_many = not caller.done()
            ending.cancel()

    asyncio.run(main())
    return took_as_many
