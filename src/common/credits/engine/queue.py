"""The engine's queue: a line of waiting operations for each user, in the order asked.

Knows no database. A lane takes lines, or the first of a long one; while a line is in a lane's
batches nobody else takes it, so that a user's operations stay in order.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from src.common.credits.domain.commands import Command, Result
from src.common.credits.domain.decisions import Outcome
from src.common.credits.engine.batches import Skipped
from src.common.exceptions import Unavailable

if TYPE_CHECKING:
    import asyncio


class EngineBusy(Unavailable):
    """Too many operations wait already, or the engine does not run; nothing was done."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "ENGINE_BUSY")


class Waiting(NamedTuple):
    """One operation, and who waits for it."""

    command: Command
    answer: "asyncio.Future[Result]"
    since: float
    """When it was asked for, by `time.perf_counter`."""


class Line:
    """One user's operations, and in how many batches of its holder some of them are."""

    __slots__ = ("batches", "user", "waiting")

    def __init__(self, user: int) -> None:
        self.user = user
        self.waiting: deque[Waiting] = deque()
        self.batches = 0
        """0 while nobody holds it."""


class Room:
    """How many operations somebody awaits, waiting or under way, and how many there may be.

    Several queues may share it.
    """

    __slots__ = ("length", "length_max")

    def __init__(self, length_max: int) -> None:
        self.length = 0
        self.length_max = length_max


class Queue:
    """All lines; `on_ready` is told when there is more to take."""

    def __init__(self, room: Room, on_ready: Callable[[], None]) -> None:
        self._room = room
        self._on_ready = on_ready
        self._lines: dict[int, Line] = {}
        """Everybody who waits or is under way, by the user's id as a number, which hashes fast."""
        self._ready: deque[Line] = deque()
        """Lines that nobody holds, in the order of their first operation."""
        self.ready_operations = 0
        self._given_up = 0
        """How many that nobody awaits any more may still be in their lines, at most."""
        self.is_closed = True

    @property
    def length(self) -> int:
        """How many operations somebody awaits, in all queues that share the room."""
        return self._room.length

    def add(self, command: Command, answer: "asyncio.Future[Result]") -> None:
        """Put a command at the end of its user's line.

        Who cancels its answer says so (`note_given_up`).

        Raises:
            EngineBusy: ENGINE_BUSY.
        """
        self.refuse_if_full()
        self._room.length += 1
        user = command.user_id.int
        line = self._lines.get(user)
        if line is None:
            line = self._lines[user] = Line(user)
            self._ready.append(line)
        line.waiting.append(Waiting(command, answer, time.perf_counter()))
        if not line.batches:
            self.ready_operations += 1
            self._on_ready()

    def refuse_if_full(self) -> None:
        """Stop who would be one too many.

        Raises:
            EngineBusy: ENGINE_BUSY.
        """
        if self.is_closed:
            raise EngineBusy("The engine is not running; try again shortly.")
        if self._room.length >= self._room.length_max:
            raise EngineBusy("Too many operations wait already; try again shortly.")

    def note_given_up(self) -> None:
        """Nobody awaits an operation any more: there is room for another at once.

        It leaves its line when that is taken. Where that takes long more and more would gather, so
        all lines are cleared of them whenever as many were given up as may wait.
        """
        self._room.length -= 1
        self.clear_of_given_up()

    def clear_of_given_up(self) -> None:
        """Clear all lines, if as many were given up as may wait; one more was."""
        self._given_up += 1
        if self._given_up < self._room.length_max:
            return
        self._given_up = 0
        for line in self._lines.values():
            awaited = deque(each for each in line.waiting if not each.answer.done())
            if not line.batches:
                self.ready_operations -= len(line.waiting) - len(awaited)
            line.waiting = awaited

    def take(
        self, share: int, number_max: int, *, split_from: int
    ) -> tuple[list[Line], list[Waiting]]:
        """Take whole lines until there are `share` operations; of those of `split_from` on a half.

        Whoever takes them holds them until it lets them go, once for each time they were taken.
        """
        lines: list[Line] = []
        taken: list[Waiting] = []
        while self._ready and len(taken) < share:
            line = self._ready.popleft()
            length = len(line.waiting)
            self.ready_operations -= length
            half = length if length < split_from else -(-length // 2)
            self._take_from(line, min(half, number_max - len(taken)), lines, taken)
        return lines, taken

    def take_behind(
        self, held: Iterable[Line], number_max: int
    ) -> tuple[list[Line], list[Waiting]]:
        """Take what waits in lines that are held already."""
        lines: list[Line] = []
        taken: list[Waiting] = []
        for line in held:
            if line.waiting and len(taken) < number_max:
                self._take_from(line, number_max - len(taken), lines, taken)
        return lines, taken

    def _take_from(self, line: Line, number: int, lines: list[Line], taken: list[Waiting]) -> None:
        line.batches += 1
        lines.append(line)
        taken += self.first_of(line, number)

    def first_of(self, line: Line, number: int) -> list[Waiting]:
        """Take the first of a line, without those whom nobody awaits any more."""
        first: list[Waiting] = []
        while line.waiting and len(first) < number:
            waiting = line.waiting.popleft()
            if not waiting.answer.done():
                first.append(waiting)
        return first

    def put_back(self, operations: Sequence[Waiting]) -> set[int]:
        """Have operations wait again, before all who came later; whose they are."""
        for waiting in reversed(operations):
            self._lines[waiting.command.user_id.int].waiting.appendleft(waiting)
        return {waiting.command.user_id.int for waiting in operations}

    def let_go(self, line: Line) -> None:
        """One batch less has this line; with the last of them anybody may take it."""
        line.batches -= 1
        if line.batches:
            return
        if line.waiting:
            self._ready.append(line)
            self.ready_operations += len(line.waiting)
            self._on_ready()
        else:
            del self._lines[line.user]

    def answer(
        self, operations: Sequence[Waiting], outcomes: Iterable[Outcome | Skipped]
    ) -> list[Waiting]:
        """Give everybody the outcome; those that were skipped come back."""
        skipped: list[Waiting] = []
        for waiting, outcome in zip(operations, outcomes, strict=True):
            if isinstance(outcome, Skipped):
                skipped.append(waiting)
                continue
            if waiting.answer.done():
                continue
            self._room.length -= 1
            if isinstance(outcome, Result):
                waiting.answer.set_result(outcome)
            else:
                waiting.answer.set_exception(outcome)
        return skipped

    def fail(self, operations: Sequence[Waiting], error: Exception) -> None:
        """Raise `error` to everybody who has no answer yet."""
        for waiting in operations:
            if not waiting.answer.done():
                self._room.length -= 1
                waiting.answer.set_exception(error)
