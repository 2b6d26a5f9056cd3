"""The result of verifying: the rows that differ, and how much was looked at."""

import uuid
from dataclasses import dataclass, field

FIRST_MAX = 100
"""How many differences a report names; it counts them all."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A row of the books that is not what the others say."""

    user_id: uuid.UUID
    seq: int | None
    """The entry, lot or hold; None where it is the user's own row."""
    kind: str
    """What does not agree: in capitals by its sums, else the column or table by the rules."""
    expected: str | None
    """What the rest of the books says."""
    found: str | None


@dataclass(kw_only=True)
class Report:
    """What was recomputed so far."""

    users: int = 0
    differing_users: int = 0
    differences: int = 0
    first: list[Difference] = field(default_factory=list[Difference])
    """The first of the differences."""
    without_opening_entry: int = 0
    """Users with a balance and no entry at all: from before the ledger, and no difference."""

    not_replayed: int = 0
    """Users whose journals are longer than `stored.JOURNAL_MAX`: their sums alone were checked."""

    def add(self, found: list[Difference], *, users: int = 1) -> None:
        """Count differences of so many users more, and name them while there is room."""
        self.differences += len(found)
        self.differing_users += users
        self.first += found[: FIRST_MAX - len(self.first)]

    def merge(self, part: "Report") -> None:
        """Add what another report of other users says."""
        self.users += part.users
        self.without_opening_entry += part.without_opening_entry
        self.not_replayed += part.not_replayed
        self.differing_users += part.differing_users
        self.differences += part.differences
        self.first += part.first[: FIRST_MAX - len(self.first)]
