"""Where checkpoints are kept outside the database: what every kind of place has to do."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from src.common.anchors.records import Record
from src.common.exceptions import Conflict, Unavailable


class SinkUnavailable(Unavailable):
    """A sink does not answer, or refuses; it is tried again later."""

    retry_after_seconds = 60

    def __init__(self, sink: str, why: str) -> None:
        super().__init__(f"{sink} cannot be used: {why}", "ANCHOR_SINK_UNAVAILABLE")


class SinkTaken(Conflict):
    """The sink has something else in that place; nothing was written."""

    def __init__(self, sink: str, number: int) -> None:
        super().__init__(
            f"{sink} has something else in the place of checkpoint {number}", "ANCHOR_SINK_TAKEN"
        )


class Sink(Protocol):
    """A place to which checkpoints are appended, in the order of their numbers, and never changed.

    Every method raises `SinkUnavailable` where the place cannot be used now.
    """

    @property
    def name(self) -> str:
        """Its address, without anything secret."""
        ...

    def newest(self, known: int | None) -> str | None:
        """The note of the newest whole checkpoint it has; None where it has none.

        It is known to have had `known`; only a hint where to look.

        Raises:
            Inconsistent: ANCHOR_UNREADABLE, what it has there is no checkpoint.
        """
        ...

    def append(self, note: str, leaves: Iterable[bytes]) -> None:
        """Keep a checkpoint; it is there for good once this returns.

        Raises:
            SinkTaken: something else is in its place.
        """
        ...

    def records(self) -> Iterator[Record]:
        """All checkpoints, the oldest first.

        Raises:
            Inconsistent: ANCHOR_UNREADABLE, of one that is no whole checkpoint.
        """
        ...
