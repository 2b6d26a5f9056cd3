"""`low` and `exhausted`: told once when the balance falls to a line, and again after it rose."""

import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from random import Random

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import (
    Adjust,
    Capture,
    Command,
    Grant,
    OpenHold,
    Release,
    Reverse,
    Spend,
)
from src.common.credits.money_back import settle_reversals
from src.common.credits.operations import execute
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.credit_entry import CreditEntry
from src.common.models.credit_hold import CreditDebt, CreditHold
from src.common.models.credit_notice import NoticeType
from src.common.models.user import User
from tests.credits.ledger import ask, at, buy, do, someone
from tests.notices.outbox import add_endpoint, data_of, notices_of, told

LOW, EXHAUSTED = NoticeType.LOW, NoticeType.EXHAUSTED
LINES = (1, 10, 35)
"""The thresholds of the endpoints."""


def test_low_is_told_when_the_line_is_crossed_and_again_after_a_rise(db: Session) -> None:
    """At the line and below it is low; only above it can it become low again."""
    add_endpoint(db, LOW, low_threshold=10)
    user_id = someone(db)
    do(db, Grant, user_id, 0, amount=20)
    do(db, Spend, user_id, 1, amount=9)  # 11: not yet
    do(db, Spend, user_id, 2, amount=1)  # 10: told
    do(db, Spend, user_id, 3, amount=5)  # 5: it was told
    do(db, Grant, user_id, 4, amount=5)  # 10: not above
    do(db, Spend, user_id, 5, amount=1)  # 9: nothing new
    do(db, Grant, user_id, 6, amount=2)  # 11: above
    do(db, Spend, user_id, 7, amount=11)  # 0: told
    assert told(db) == [(LOW, 3), (LOW, 8)]
    first, second = data_of(db, LOW)
    assert first == {
        "user_id": str(user_id),
        "seq": 3,
        "balance": 10,
        "threshold": 10,
        "effective_at": "2020-01-01T00:00:02.000000Z",
    }
    assert (second["balance"], second["threshold"]) == (0, 10)


def test_each_endpoint_has_its_own_line(db: Session) -> None:
    """One spend may cross one, two or none."""
    ten, five = (add_endpoint(db, LOW, low_threshold=line) for line in (10, 5))
    user_id = someone(db)
    do(db, Grant, user_id, 0, amount=20)
    do(db, Spend, user_id, 1, amount=12)
    do(db, Spend, user_id, 2, amount=3)
    do(db, Grant, user_id, 3, amount=15)
    do(db, Spend, user_id, 4, amount=18)
    assert told(db, endpoint_id=ten) == [(LOW, 2), (LOW, 5)]
    assert told(db, endpoint_id=five) == [(LOW, 3), (LOW, 5)]


def test_exhausted_is_told_when_nothing_is_left(db: Session) -> None:
    """From above only."""
    add_endpoint(db, EXHAUSTED)
    user_id = someone(db)
    do(db, Grant, user_id, 0, amount=20)
    do(db, Spend, user_id, 1, amount=19)
    do(db, OpenHold, user_id, 2, amount=1, expires_in_seconds=60)
    assert told(db) == [(EXHAUSTED, 3)]
    assert data_of(db, EXHAUSTED)[0]["balance"] == 0


def test_what_an_operation_gives_and_takes_in_one_go_is_no_fall(db: Session) -> None:
    """A grant that repays a debt leaves nothing, as there was nothing before."""
    user_id = someone(db)
    bought = buy(db, user_id, amount=50)
    do(db, Spend, user_id, 1, amount=50)
    take_back(db, user_id, {bought.seq: 50}, 2)
    add_endpoint(db, LOW, EXHAUSTED, low_threshold=10)
    do(db, Grant, user_id, 3, amount=30)
    assert told(db) == []
    do(db, Grant, user_id, 4, amount=60)  # 20 repay the rest, 40 stay
    do(db, Spend, user_id, 5, amount=40)
    assert [kind for kind, _ in told(db)] == [LOW, EXHAUSTED]


def test_what_fell_due_is_told_whether_or_not_the_worker_was_there(db: Session) -> None:
    """A lot expired, then a grant came: between the two the balance was low."""
    add_endpoint(db, LOW, EXHAUSTED, low_threshold=10)
    user_id = someone(db)
    do(db, Grant, user_id, 0, amount=50, expires_at=at(60))
    do(db, Grant, user_id, 90, amount=100)
    assert told(db) == [(LOW, 2), (EXHAUSTED, 2)]
    assert data_of(db, LOW)[0]["effective_at"] == "2020-01-01T00:01:00.000000Z"


def test_of_several_operations_at_one_instant_the_last_balance_counts(db: Session) -> None:
    """A batch is one statement at one instant: nobody ever saw the balance in between."""
    add_endpoint(db, LOW, low_threshold=10)
    ada, bob = someone(db), someone(db)
    grants = [ask(Grant, user_id, amount=20) for user_id in (ada, bob)]
    execute(db, grants, now=at(0))
    spends = [ask(Spend, user_id, amount=15) for user_id in (ada, bob)]
    execute(db, [*spends, ask(Grant, ada, amount=15)], now=at(1))
    assert (told(db, ada), told(db, bob)) == ([], [(LOW, 2)])


def take_back(
    db: Session, user_id: uuid.UUID, targets: dict[int, int], now: float, number: int = 0
) -> None:
    """Money went back: so many credits of these lots are to be back."""
    wanted = {seq: amount for seq, amount in targets.items() if amount}
    key = f"~reversal:re_{number}"
    settle_reversals(db, user_id, wanted, key=key, actor="system:stripe", now=at(now))


@dataclass
class Observer:
    """Somebody with a memory, who sees a user's balance at each instant, and what they owe."""

    db: Session
    user_id: uuid.UUID
    lines: Sequence[int]
    """0 is the line of `exhausted`."""
    told: dict[int, list[tuple[str, int]]] = field(default_factory=dict[int, list[tuple[str, int]]])
    """By line, what they would tell."""
    debts: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """What they would tell of debts, and of which payment."""
    seen: int = 0
    _above: set[int] = field(default_factory=set[int])
    _owed: dict[int, int] = field(default_factory=dict[int, int])

    def look(self) -> bool:
        """Whether anything was written since they looked last."""
        before = self.seen
        entries = self.db.scalars(
            select(CreditEntry)
            .where(CreditEntry.user_id == self.user_id, CreditEntry.seq > self.seen)
            .order_by(CreditEntry.seq)
        ).all()
        for _, of_instant in groupby(entries, key=lambda entry: entry.effective_at):
            *_, last = of_instant
            self.seen = last.seq
            for line in self.lines:
                if last.balance_after > line:
                    self._above.add(line)
                elif line in self._above:
                    self._above.remove(line)
                    kind = LOW if line else EXHAUSTED
                    self.told.setdefault(line, []).append((kind, last.seq))
        self._look_at_debts()
        return self.seen > before

    def _look_at_debts(self) -> None:
        rows = self.db.execute(
            select(CreditDebt.seq, CreditDebt.outstanding)
            .where(CreditDebt.user_id == self.user_id)
            .order_by(CreditDebt.seq)
        )
        for seq, outstanding in rows:
            before, self._owed[seq] = self._owed.get(seq, 0), outstanding
            if (before > 0) != (outstanding > 0):
                kind = NoticeType.DEBT_OPENED if outstanding else NoticeType.DEBT_SETTLED
                self.debts.append((kind, seq))


@dataclass
class Life:
    """What is done to a user, at random."""

    db: Session
    user_id: uuid.UUID
    random: Random
    pauses: tuple[float, ...] = (0, 1, 7, 15)
    """Seconds that may pass before something is done."""
    now: float = 0
    bought: dict[int, int] = field(default_factory=dict[int, int])
    """By the lots of their payments, the credits."""

    def go_on(self, number: int) -> None:
        """Something that is done, or is refused and then changes nothing."""
        self.now += self.random.choice(self.pauses)
        choice = self.random.random()
        if choice < 0.1:
            amount = self.random.randint(5, 40)
            self.bought[buy(self.db, self.user_id, self.now, amount=amount).seq] = amount
        elif choice < 0.25:
            back = {seq: self.random.randint(0, most) for seq, most in self.bought.items()}
            take_back(self.db, self.user_id, back, self.now, number)
        else:
            with suppress(ExceptionWithErrorType), self.db.begin_nested():
                execute(self.db, self._commands(), now=at(self.now))

    def _commands(self) -> list[Command]:
        """One, or a batch of a few."""
        user_id, some = self.user_id, self.random.randint(1, 25)
        soon = self.random.randint(1, 40)
        kinds: list[Command] = [
            ask(Grant, user_id, amount=some, expires_at=at(self.now + soon)),
            ask(Grant, user_id, amount=some),
            ask(Spend, user_id, amount=some),
            ask(Spend, user_id, amount=self.random.randint(1, 9)),
            ask(Adjust, user_id, amount=-some, reason="test"),
            ask(OpenHold, user_id, amount=some, expires_in_seconds=soon),
        ]
        holds = self.db.scalars(
            select(CreditHold.seq).where(CreditHold.user_id == user_id, CreditHold.status == "open")
        ).all()
        if holds:
            hold = self.random.choice(holds)
            kinds += [
                ask(Capture, user_id, hold_seq=hold, amount=self.random.randint(1, some)),
                ask(Release, user_id, hold_seq=hold),
            ]
        last = self.db.get_one(User, user_id, populate_existing=True).credits_version
        if last:
            seq = self.random.randint(1, last)
            kinds.append(ask(Reverse, user_id, seq=seq, reason="test"))
        return self.random.choices(kinds, k=self.random.choice((1, 1, 1, 3)))


@pytest.mark.parametrize("seed", range(5))
def test_whoever_has_a_memory_would_tell_the_same(db: Session, seed: int) -> None:
    """Whatever is done, in whatever order: of the balance and of debts exactly what they saw."""
    user_id = someone(db)
    life = Life(db, user_id, Random(seed))  # noqa: S311  to be repeatable
    endpoints = {line: add_endpoint(db, LOW, low_threshold=line) for line in LINES}
    endpoints[0] = add_endpoint(db, EXHAUSTED)
    owing = add_endpoint(db, NoticeType.DEBT_OPENED, NoticeType.DEBT_SETTLED)
    observer = Observer(db, user_id, sorted(endpoints))
    written = 0
    for number in range(60):
        life.go_on(number)
        written += observer.look()
    assert written > 25
    assert observer.told
    for line, endpoint_id in endpoints.items():
        assert told(db, user_id, endpoint_id) == observer.told.get(line, [])
    debts = [(each.type, each.data["payment_seq"]) for each in notices_of(db, user_id, owing)]
    assert Counter(debts) == Counter(observer.debts)
    seqs = [each.seq or 0 for each in notices_of(db, user_id)]
    assert seqs == sorted(seqs)
