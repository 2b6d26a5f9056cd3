"""Runs work to its end although the caller is cancelled, such as a COMMIT."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def run_to_end(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `work` to its end whoever is cancelled meanwhile; then the cancellation goes its way.

    The caller waits for it, since a loop that shuts down waits for whoever it cancels. It also
    cancels the task of `work` itself: `work` is then begun anew, so doing it twice must be as good
    as once. How long it may take is its own to limit.

    Raises:
        CancelledError: the caller was cancelled; if `work` failed, that is the `__cause__`.
        Exception: whatever `work` raises.
    """
    cancellation: asyncio.CancelledError | None = None
    task = asyncio.create_task(work())
    while not task.done() or task.cancelled():
        if task.done():
            task = asyncio.create_task(work())
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        raise cancellation from task.exception()
    return task.result()
