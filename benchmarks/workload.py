"""What the callers ask for: spends over three open lots, a fifth of them across two, some replays.

Pure: no clock, no database. Every user keeps a lot that is burned last and never reached in order
(`RESERVE`), and two of `LOT` credits before it. When little more than one of those is left the
next operation on that user grants another, so that a long run neither runs dry nor piles up lots.
"""

import itertools
import random
import uuid
from collections.abc import Sequence
from typing import NamedTuple

RESERVE = 100_000_000
"""Credits in the lot burned last: what is taken out of order comes from here, not refused."""
RESERVE_PRIORITY = 200
LOT = 45
AMOUNT_MAX = 19
"""A spend is 1 to 19 credits: 4.5 of them empty a lot, and nine tenths of those end in the next, so
that a fifth of all spends draw on two lots."""
REPLAY_SHARE = 0.05


class Operation(NamedTuple):
    """One request."""

    user_id: uuid.UUID
    amount: int
    """Credits taken; below 0, credits given."""
    key: str


class Workload:
    """The operations of one process, over as many callers as it has."""

    def __init__(
        self,
        user_ids: Sequence[uuid.UUID],
        spendable: Sequence[int],
        *,
        tops_up: bool,
        replays: bool,
        seed: int | None = None,
    ) -> None:
        self._user_ids = user_ids
        self._spendable = list(spendable)
        """What each user has beyond the reserve, once everything handed out is done."""
        self._tops_up = tops_up
        self._replay_share = REPLAY_SHARE if replays else 0.0
        self._random = random.Random(seed)  # noqa: S311  no secret
        self._prefix = uuid.UUID(int=self._random.getrandbits(128)).hex
        self._numbers = itertools.count(1)

    def next(self, last: Operation | None) -> tuple[Operation, bool]:
        """Return what a caller asks next, and whether it is its last request once more."""
        draw = self._random.random
        if last is not None and draw() < self._replay_share:
            return last, True
        place = int(draw() * len(self._user_ids))
        amount = 1 + int(draw() * AMOUNT_MAX)
        if self._tops_up and self._spendable[place] < LOT:
            amount = -LOT
        self._spendable[place] -= amount
        key = f"{self._prefix}:{next(self._numbers)}"
        return Operation(self._user_ids[place], amount, key), False


def share_of(spendable: int, processes: int) -> int:
    """Return what one of several processes may count on, so that together they spend no more."""
    return spendable if spendable < LOT else LOT + (spendable - LOT) // processes
