"""What a worker process drives: one way to ask for an operation, awaited or blocking."""

from abc import ABC, abstractmethod
from typing import ClassVar

from benchmarks.workload import Operation


class Refused(Exception):
    """An operation that was answered with an error; its message is the type."""


class Calls:
    """What awaited and blocking calls have in common."""

    tops_up: ClassVar[bool] = True
    """Whether users are granted another lot when one is used up."""
    replays: ClassVar[bool] = True
    """Whether a request can be sent twice and is done once."""
    unmeasured: int = 0
    """Operations done before the callers began and after they ended, which know nothing of them."""


class AsyncCalls(Calls, ABC):
    """Callers are tasks of one event loop."""

    @abstractmethod
    async def open(self, callers: int) -> None:
        """Connect, for so many callers."""

    @abstractmethod
    async def close(self) -> None:
        """Close every connection."""

    async def restore(self) -> None:
        """Once all is measured: leave the users as others need them."""

    @abstractmethod
    async def call(self, caller: int, operation: Operation) -> bool:
        """Do the operation; whether it was answered as a replay.

        Raises:
            Refused: it was not done.
        """


class ThreadCalls(Calls, ABC):
    """Callers are threads."""

    @abstractmethod
    def open(self, callers: int) -> None:
        """Connect, for so many callers."""

    @abstractmethod
    def close(self) -> None:
        """Close every connection."""

    @abstractmethod
    def call(self, caller: int, operation: Operation) -> bool:
        """Do the operation; whether it was answered as a replay.

        Raises:
            Refused: it was not done.
        """
