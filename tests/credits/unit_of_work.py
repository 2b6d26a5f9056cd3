"""The model of what a session does with one loaded user before it commits (rule 10).

Assigned balances count by their difference: with the flush it is in the row, booked it is with the
next operation or the commit.
"""

import datetime as dt
import uuid
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

from src.common.credits.domain.commands import Command
from tests.credits.books import adjust
from tests.credits.model import Person
from tests.credits.model_values import Answer, Refused


@dataclass
class UnitOfWork:
    """One user's books as this database transaction has them, and what is still to be booked."""

    user_id: uuid.UUID
    person: Person
    now: dt.datetime
    assigned: int = 0
    """Assigned, not flushed."""
    pending: int = 0
    """Flushed, not booked."""
    is_ambiguous: bool = False
    """Whether what is pending is neither the sum of new purchases nor without any."""
    is_noted: bool = False
    """Whether the row was changed, perhaps back again, since anything was booked."""

    @property
    def shown(self) -> tuple[int, int]:
        """Balance and version of the loaded user."""
        return self.person.booked + self.pending + self.assigned, len(self.person.journal)

    def copy(self) -> "UnitOfWork":
        """What a savepoint may return to."""
        return copy(self)  # operations replace the person

    def return_to(self, before: "UnitOfWork") -> None:
        """A savepoint is rolled back: what was only assigned in it is lost too."""
        vars(self).update(vars(before))

    def flush(self, by_hook: int = 0) -> None:
        """Write what was assigned into the row; a hook may add to it once the row is locked."""
        change, self.assigned = self.assigned, 0
        if change:
            self._lock(change)
        if by_hook and change:
            self._need(change + by_hook)
        elif by_hook:
            self._lock(by_hook)
        if change + by_hook:
            self.pending += change + by_hook
            self.is_noted = True

    def ask(self, commands: Sequence[Command]) -> list[Answer | str]:
        """What each of them is told; what is pending is booked before them."""
        self.flush()
        self._book()
        person, done = self.person.at(self.now), False
        outcomes: list[Answer | str] = []
        for command in commands:
            try:
                answer = person.do(command)
            except Refused as refused:
                outcomes.append(refused.args[0])
            else:
                outcomes.append(answer)
                done = done or not answer.replayed
        if done:
            self.person = person
        return outcomes

    def commit(self) -> None:
        """Nothing is left to be booked; a first change, taken back, leaves an opening entry."""
        self.flush()
        self._book()
        if self.is_noted and not self.person.journal:
            self.person = self.person.at(self.now)
            if self.person.opening is None:
                self.person.open()
        self.is_noted = False

    def _lock(self, change: int) -> None:
        """Lock the row; what is due is booked where that decides whether there is enough."""
        is_debtor = self.person.before < 0 and not self.person.journal
        is_short = self.person.booked + self.pending + change < 0 and not self.is_noted
        if is_debtor or is_short:
            self.person = self.person.at(self.now)
        self._need(change)

    def _need(self, change: int) -> None:
        if change < 0 and self.person.booked + self.pending + change < 0:
            raise Refused("INSUFFICIENT_CREDITS")

    def _book(self) -> None:
        if self.is_ambiguous:
            raise Refused("BALANCE_CHANGE_AMBIGUOUS")
        if self.pending:
            person = self.person.at(self.now)
            person.do(adjust(self.user_id, self.pending))
            self.person, self.pending, self.is_noted = person, 0, False
