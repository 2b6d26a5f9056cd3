"""What undoing an entry leaves, for any lots and amounts (rule 12): the rules alone."""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from src.common.credits.domain import reversals, rules
from src.common.credits.domain.book import Book
from src.common.credits.domain.commands import Command
from src.common.credits.domain.own_commands import Purchase
from src.common.models.credit_lot import LotSource
from tests.credits import books

START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
WHO = uuid.UUID(int=1)
lots = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 3)), min_size=1, max_size=6)
"""Credits and priority of each."""


@dataclass
class Books:
    """One user's, in memory."""

    book: Book = field(
        default_factory=lambda: rules.settle(Book(WHO, 0, 0, is_active=True, now=START))
    )

    def do(self, command: Command) -> int:
        """The entry's number."""
        return rules.apply(self.book, command, open_holds_max=9).seq

    def grant(self, given_lots: Sequence[tuple[int, int]]) -> None:
        """A lot of each."""
        for amount, priority in given_lots:
            self.do(books.grant(WHO, amount, priority=priority))

    @property
    def left(self) -> dict[int, int]:
        """What remains, by lot."""
        return {seq: lot.remaining for seq, lot in self.book.lots.items()}


@given(lots, st.data())
def test_undoing_a_part_leaves_what_a_smaller_spend_leaves(
    given_lots: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Spending n and undoing m, at once or in two parts, leaves in each lot what n - m leaves."""
    spent = data.draw(st.integers(1, sum(amount for amount, _ in given_lots)))
    undone = data.draw(st.integers(1, spent))
    first = data.draw(st.integers(0, undone))
    undoing, spending = Books(), Books()
    for each in (undoing, spending):
        each.grant(given_lots)
    seq = undoing.do(books.spend(WHO, spent))
    for part in filter(None, (first, undone - first)):
        undoing.do(books.reverse(WHO, seq, part))
    if spent > undone:
        spending.do(books.spend(WHO, spent - undone))
    assert undoing.left == spending.left
    assert undoing.book.balance == spending.book.balance


@given(lots, st.data())
def test_undoing_what_was_captured_leaves_what_a_smaller_capture_leaves(
    given_lots: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Whatever was held: capturing n and undoing m leaves in each lot what capturing n - m does."""
    held = data.draw(st.integers(2, max(2, sum(amount for amount, _ in given_lots))))
    given_lots = [*given_lots, (2, 9)]
    captured = data.draw(st.integers(2, held))
    undone = data.draw(st.integers(1, captured - 1))
    undoing, capturing = Books(), Books()
    for each, amount in ((undoing, captured), (capturing, captured - undone)):
        each.grant(given_lots)
        hold = each.do(books.open_hold(WHO, held))
        each.do(books.capture(WHO, hold, amount))
    undoing.do(books.reverse(WHO, len(given_lots) + 1, undone))
    assert undoing.left == capturing.left


@given(lots, st.integers(1, 30), st.data())
def test_money_back_before_or_after_takes_the_same(
    given_lots: list[tuple[int, int]], paid: int, data: st.DataObject
) -> None:
    """While all lots live: once it is computed again, in either order each lot and debt is one."""
    target = data.draw(st.integers(0, paid))
    spent = data.draw(st.integers(1, paid + sum(amount for amount, _ in given_lots)))
    undone = data.draw(st.integers(1, spent))
    ends: list[tuple[dict[int, int], dict[int, int]]] = []
    for is_before in (True, False):
        each = Books()
        payment = each.do(_purchase(paid))
        each.grant(given_lots)
        seq = each.do(books.spend(WHO, spent))
        if is_before:
            _take(each.book, {payment: target})
        each.do(books.reverse(WHO, seq, undone))
        _take(each.book, {payment: target})
        ends.append((each.left, {seq: owed for seq, owed in each.book.debts.items() if owed}))
        assert not each.book.balance or not each.book.debt
    assert ends[0] == ends[1]


def _purchase(amount: int) -> Command:
    return Purchase(
        user_id=WHO,
        key="~purchase:cs",
        actor="system:test",
        amount=amount,
        transaction_id=uuid.uuid4(),
        source=LotSource.PURCHASE,
    )


def _take(book: Book, targets: dict[int, int]) -> None:
    """The book has written nothing: all its histories are in its entries."""
    reversals.reallocate(book, {}, targets, key="~reversal", actor="system:test")
