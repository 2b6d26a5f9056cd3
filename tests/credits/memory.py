"""A user's ledger in memory alone: the rules with nothing underneath, for properties and examples.

Seconds stand for instants; amounts are credits.
"""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

from src.common.credits.domain import reversals, rules
from src.common.credits.domain.book import Book, Entry, Lot
from src.common.credits.domain.commands import (
    Capture,
    Command,
    Grant,
    OpenHold,
    Release,
    Result,
    Spend,
)
from src.common.credits.domain.own_commands import Purchase
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.credit_lot import LotSource

HISTORIC = 100
"""Credits of the purchases from before the ledger that left no lot."""
START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)

Step = tuple[str, int, int, int]
"""What happens next, and up to three numbers: see `Ledger.do`."""


class Ledger:
    """One user's book; every command settles first, as operations do; a refusal does nothing."""

    def __init__(self, *, opening: int = 0) -> None:
        """`opening` is the balance from before the ledger."""
        self.book = Book(uuid.uuid4(), opening, 0, True, START)
        rules.settle(self.book)
        self.payments: list[int] = [1] if opening else []
        """Purchases, by the `seq` of their lots; those from before the ledger by the opening's."""
        self.booked: dict[int, reversals.LotHistory] = {}
        """Of entries that are no longer in the book."""
        self.targets: dict[int, int] = {}
        """Credits to be back, by payment."""

    def ask(self, command: Command) -> Result | None:
        """Put a command to the rules; None is a refusal."""
        rules.settle(self.book)
        try:
            return rules.apply(self.book, command, open_holds_max=100)
        except ExceptionWithErrorType:
            return None

    def buy(self, amount: int, *, lasts: int | None = None) -> int:
        """A purchase; the `seq` of its lot."""
        purchase = Purchase(
            **self._who(),
            amount=amount,
            expires_at=self._end(lasts),
            transaction_id=self.pay(amount),
        )
        result = self.ask(purchase)
        assert result is not None
        self.payments.append(result.seq)
        return result.seq

    def pay(self, amount: int) -> uuid.UUID:
        """Somebody paid for so many credits; the `transaction_id` of that."""
        assert amount
        return uuid.uuid4()

    def grant(
        self, amount: int, *, source: LotSource = LotSource.PROMO, lasts: int | None = None
    ) -> int:
        """Credits come in; the `seq` of their lot. Promotional ones burn first."""
        facts: dict[str, Any] = {"amount": amount, "source": source, "expires_at": self._end(lasts)}
        result = self.ask(Grant(**self._who(), **facts))
        assert result is not None
        return result.seq

    def spend(self, amount: int) -> Result | None:
        """Credits are used."""
        return self.ask(Spend(**self._who(), amount=amount))

    def hold(self, amount: int, *, lasts: int = 1_000_000) -> int | None:
        """Credits are set aside; the hold's `seq`."""
        result = self.ask(OpenHold(**self._who(), amount=amount, expires_in_seconds=lasts))
        return result.seq if result else None

    def release(self, hold_seq: int) -> Result | None:
        """A hold is given up."""
        return self.ask(Release(**self._who(), hold_seq=hold_seq))

    def capture(self, hold_seq: int, amount: int) -> Result | None:
        """Some of a hold is kept, the rest comes back."""
        return self.ask(Capture(**self._who(), hold_seq=hold_seq, amount=amount))

    def wait(self, seconds: int) -> None:
        """Time passes, and what falls due counts."""
        self.book.now += dt.timedelta(seconds=seconds)
        rules.settle(self.book)

    def reverse(self, targets: Mapping[int, int]) -> list[Entry]:
        """So many credits are to be back now, by payment, of all payments."""
        self.targets = dict(targets)
        rules.settle(self.book)
        return reversals.reallocate(
            self.book, self.booked, targets, key="~reversal", actor="system:stripe"
        )

    def do(self, steps: Sequence[Step]) -> None:
        """Let a whole history happen; what a step cannot do is left out."""
        for step in steps:
            self._do(*step)

    def copy(self) -> "Ledger":
        """Another ledger in the same state."""
        return deepcopy(self)

    @property
    def remaining(self) -> dict[int, int]:
        """What is left, by lot, where anything is."""
        return {lot.seq: lot.remaining for lot in self.book.lots.values() if lot.remaining}

    @property
    def debts(self) -> dict[int, int]:
        """What is owed, by payment, where anything is."""
        return {payment: owed for payment, owed in self.book.debts.items() if owed}

    @property
    def state(self) -> object:
        """What must not depend on the order in which money came back."""
        return self.book.balance, self.remaining, self.debts

    def lot(self, seq: int) -> Lot:
        """One lot."""
        return self.book.lots[seq]

    def share(self, payment: int, percent: int) -> int:
        """So many hundredths of a payment's credits."""
        lot = self.book.lots.get(payment)
        return (lot.granted if lot else HISTORIC) * percent // 100

    def _do(self, what: str, first: int, second: int, third: int) -> None:
        lasts = third or None
        holds = self.book.open_holds
        if what == "buy":
            self.buy(first, lasts=lasts)
        elif what == "grant":
            source = (LotSource.PROMO, LotSource.SUBSCRIPTION)[second % 2]
            self.grant(first, source=source, lasts=lasts)
        elif what == "spend":
            self.spend(first)
        elif what == "hold":
            self.hold(first, lasts=third + 1)
        elif what == "wait":
            self.wait(third)
        elif what == "release" and holds:
            self.release(holds[second % len(holds)].seq)
        elif what == "capture" and holds:
            self.capture(holds[second % len(holds)].seq, first)
        elif what == "reverse" and self.payments:
            payment = self.payments[second % len(self.payments)]
            self.reverse({**self.targets, payment: self.share(payment, min(first, 100))})

    def _end(self, lasts: int | None) -> dt.datetime | None:
        return None if lasts is None else self.book.now + dt.timedelta(seconds=lasts)

    def _who(self) -> dict[str, Any]:
        return {
            "user_id": self.book.user_id,
            "key": f"key-{self.book.next_seq}",
            "actor": "system:test",
        }


def steps(*kinds: str, max_size: int = 14) -> st.SearchStrategy[list[Step]]:
    """Histories of these kinds of step."""
    step = st.tuples(
        st.sampled_from(kinds), st.integers(1, 120), st.integers(0, 5), st.integers(0, 60)
    )
    return st.lists(step, max_size=max_size)


LIFE = ("buy", "buy", "grant", "spend", "hold", "release", "capture", "wait")
EVERYTHING = (*LIFE, "reverse", "reverse")
