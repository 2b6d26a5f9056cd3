"""What the load asks for, and the record of what it was told: each acknowledgement with its key."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

PURCHASE = "purchase"


@dataclass(frozen=True)
class Operation:
    """One thing to be done once, however often it is tried."""

    way: str
    """By which way in: `http`, `webhook`, `sync`, `async`, `engine`, `orm`."""
    kind: str
    """`spend`, `hold`, `capture`, `release` or `purchase`."""
    user_id: str
    key: str
    """The idempotency key; of a purchase the name of its Checkout Session."""
    amount: int
    hold_seq: int | None = None

    @property
    def entry_key(self) -> str:
        """The idempotency key of the entry that it makes in the books."""
        return f"~purchase:{self.key}" if self.kind == PURCHASE else self.key


@dataclass(frozen=True)
class Asked:
    """An operation, and what became of it as far as whoever asked was told."""

    operation: Operation
    tries: int
    acknowledged_at: float | None
    """By the machine's monotonic clock; None where nobody was ever told that it is done."""
    seq: int | None = None
    """The number of the entry, where the answer said it."""
    refusal: str | None = None
    """What it was refused with, for good; that is never to be expected of this load."""


@dataclass
class Record:
    """Writes down what was asked and acknowledged, a line each, as it happens."""

    file: TextIO
    acknowledged: int = field(default=0)

    def note(self, operation: Operation, tries: int, seq: int | None) -> None:
        """It was acknowledged now."""
        self.acknowledged += 1
        self._write(Asked(operation, tries, time.monotonic(), seq))

    def give_up(self, operation: Operation, tries: int, refusal: str | None = None) -> None:
        """It was never acknowledged."""
        self._write(Asked(operation, tries, None, None, refusal))

    def _write(self, asked: Asked) -> None:
        self.file.write(json.dumps(asdict(asked)) + "\n")
        self.file.flush()


def read_record(written: Path) -> Iterator[Asked]:
    """What was written down; a line that is being written is left out."""
    with written.open() as lines:
        for line in lines:
            if line.endswith("\n"):
                read: dict[str, Any] = json.loads(line)
                operation = Operation(**read.pop("operation"))
                yield Asked(operation, **read)
