"""Spans of the engine's batches, and links between them and the spans of those who asked."""

import weakref
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from src.common import tracing
from src.common.credits.engine.queue import Waiting

if TYPE_CHECKING:
    import asyncio

    from opentelemetry.trace import Span

    from src.common.credits.domain.commands import Result

_callers: "weakref.WeakKeyDictionary[asyncio.Future[Result], Span]" = weakref.WeakKeyDictionary()
"""Whose span each answer belongs to, where tracing is on."""


def note_caller(answer: "asyncio.Future[Result]") -> None:
    """Note whose span is current where an operation is asked for."""
    caller = tracing.current_span()
    if caller is not None:
        _callers[answer] = caller


def begin_batch(operations: Sequence[Waiting]) -> "Span | None":
    """The span of a batch that was just taken; None where tracing is off."""
    if not tracing.is_on():
        return None
    callers = {_callers.get(each.answer) for each in operations} - {None}
    return tracing.begin("credits batch", filter(None, callers), operations=len(operations))


@contextmanager
def traced_batch(operations: Sequence[Waiting]) -> Generator[None]:
    """A batch of the side lanes, which the block runs."""
    made = begin_batch(operations)
    try:
        yield
    finally:
        if made is not None:
            end_batch(made, None, was_guarded=False)


def end_batch(made: "Span", error: Exception | None, *, was_guarded: bool) -> None:
    """It was answered, put back or parked; `was_guarded`: written without locks taken first."""
    made.set_attribute("credits.written_without_locks", was_guarded)
    if error is not None:
        tracing.fail(made, error)
    made.end()
