"""Users and purchases from before the ledger: what the first operation makes of them."""

import uuid
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.credits import queries
from src.common.credits.domain import reversals, rules
from src.common.credits.domain.book import Book
from src.common.credits.domain.errors import InsufficientCredits
from src.common.credits.money_back import lot_of_purchase, settle_reversals
from src.common.credits.operations import execute
from src.common.models.credit_hold import CreditDebt
from src.common.models.transaction import Transaction
from src.common.models.user import User
from tests.credits.books import (
    InSession,
    adjust,
    booked_balance,
    check_books,
    from_before,
    grant,
    journal,
    spend,
    triggers_off,
)
from tests.credits.memory import START, Ledger


def with_purchases(session: Session, balance: int, *purchases: int) -> User:
    """A user from before the ledger with purchases of then."""
    user = from_before(session, balance)
    with triggers_off(session, "transactions"):
        session.add_all(
            Transaction(
                user_id=user.user_id,
                stripe_session_id=f"cs_{uuid.uuid4()}",
                amount_paid_cents=credits_added,
                credits_added=credits_added,
                predates_ledger=True,
            )
            for credits_added in purchases
        )
    return user


def debts(session: Session, user: User) -> dict[int, tuple[int, int]]:
    """What is owed now and was owed at the beginning, by payment."""
    rows = session.execute(
        select(CreditDebt.seq, CreditDebt.outstanding, CreditDebt.opening_debt).where(
            CreditDebt.user_id == user.user_id
        )
    )
    return {seq: (outstanding, opening_debt) for seq, outstanding, opening_debt in rows}


async def test_a_negative_balance_becomes_0_and_a_debt(in_session: InSession) -> None:
    """The first operation opens; what comes in repays first, what is left can be spent."""

    def work(session: Session) -> None:
        user = from_before(session, -30)
        execute(session, [grant(user.user_id, 10)])
        assert (booked_balance(session, user.user_id), debts(session, user)) == (0, {1: (20, 30)})
        execute(session, [grant(user.user_id, 50), spend(user.user_id, 25)])
        assert journal(session, user.user_id) == [
            ("opening", 0),
            ("grant", 10),
            ("debt_repayment", -10),
            ("grant", 50),
            ("debt_repayment", -20),
            ("spend", -25),
        ]
        assert (booked_balance(session, user.user_id), debts(session, user)) == (5, {1: (0, 30)})
        check_books(session)

    await in_session(work)


async def test_a_refusal_leaves_a_negative_balance_as_it_was(in_session: InSession) -> None:
    """Nothing can be spent of it, and nothing is written."""

    def work(session: Session) -> None:
        user = from_before(session, -30)
        with pytest.raises(InsufficientCredits) as refused:
            execute(session, [spend(user.user_id, 1)])
        assert refused.value.details == {"required": 1, "available": 0}
        assert (booked_balance(session, user.user_id), journal(session, user.user_id)) == (-30, [])
        read = queries.balance(session, user.user_id)
        assert (read.balance, read.debt) == (0, 30)
        explained = queries.explain(session, user.user_id)
        assert [each.outstanding for each in explained.debts] == [30]

    await in_session(work)


@pytest.mark.parametrize(
    ("balance", "added", "left", "owed"), [(-30, 10, 0, 20), (-30, 40, 10, 0), (-30, 30, 0, 0)]
)
async def test_assigning_adds_to_a_negative_balance(
    in_session: InSession, balance: int, added: int, left: int, owed: int
) -> None:
    """The document's `+=` repays what was owed, whether or not the sum is above 0."""

    def work(session: Session) -> None:
        user = from_before(session, balance)
        user.credits_balance += added
        session.commit()
        assert user.credits_balance == left
        assert debts(session, user) == {1: (owed, -balance)}
        assert journal(session, user.user_id)[:2] == [("opening", 0), ("adjustment", added)]
        check_books(session)

    await in_session(work)


async def test_assigning_takes_nothing_from_a_negative_balance(in_session: InSession) -> None:
    """`-=` is refused as for anybody who has nothing."""

    def work(session: Session) -> None:
        user = from_before(session, -30)
        user.credits_balance -= 1
        with pytest.raises(InsufficientCredits):
            session.flush()

    await in_session(work)


async def test_historic_purchases_share_the_opening_lot(in_session: InSession) -> None:
    """Money back takes from it first; what is more than it was granted is a debt."""

    def work(session: Session) -> None:
        user = with_purchases(session, 100, 500, 300)
        historic = session.scalars(select(Transaction).where(Transaction.user == user)).all()
        assert {lot_of_purchase(session, each) for each in historic} == {1}
        assert journal(session, user.user_id) == [("opening", 100)]
        settle_reversals(session, user.user_id, {1: 60}, key="~refund:a", actor="system:test")
        assert (booked_balance(session, user.user_id), debts(session, user)) == (40, {})
        settle_reversals(session, user.user_id, {1: 800}, key="~refund:b", actor="system:test")
        assert (booked_balance(session, user.user_id), debts(session, user)) == (0, {1: (700, 0)})
        settle_reversals(session, user.user_id, {1: 30}, key="~refund:c", actor="system:test")
        assert (booked_balance(session, user.user_id), debts(session, user)) == (70, {1: (0, 0)})
        check_books(session)

    await in_session(work)


@pytest.mark.parametrize("first", [[], [25]], ids=["untouched", "after a grant"])
async def test_a_historic_purchase_without_a_balance_has_an_opening_too(
    in_session: InSession, first: list[int]
) -> None:
    """All was spent before the ledger: the entry of 0 stands in, and the refund is a debt."""

    def work(session: Session) -> None:
        user = with_purchases(session, 0, 500)
        execute(session, [grant(user.user_id, amount) for amount in first])
        [purchase] = session.scalars(select(Transaction).where(Transaction.user == user))
        lot = lot_of_purchase(session, purchase)
        assert lot is not None
        assert lot == len(first) + 1 == lot_of_purchase(session, purchase)
        assert journal(session, user.user_id)[-1] == ("opening", 0)
        settle_reversals(session, user.user_id, {lot: 500}, key="~refund:a", actor="system:test")
        assert booked_balance(session, user.user_id) == 0
        assert debts(session, user) == {lot: (500 - sum(first), 0)}
        check_books(session)

    await in_session(work)


async def test_only_what_was_there_before_is_historic(in_session: InSession) -> None:
    """A purchase of today has its own lot, or none where application code credited nobody."""

    def work(session: Session) -> None:
        user = from_before(session, 40)
        values: dict[str, Any] = {
            "user_id": user.user_id,
            "amount_paid_cents": 5,
            "credits_added": 5,
        }
        credited = Transaction(stripe_session_id="cs_credited", **values)
        session.add(credited)
        user.credits_balance += 5
        assert lot_of_purchase(session, credited) == 2
        forgotten = Transaction(stripe_session_id="cs_forgotten", **values)
        session.add(forgotten)
        assert lot_of_purchase(session, forgotten) is None
        check_books(session)

    await in_session(work)


async def test_what_was_owed_at_the_beginning_outlives_reversals(in_session: InSession) -> None:
    """However refunds come and go, the opening's debt is what nothing was left to repay."""

    def work(session: Session) -> None:
        user = from_before(session, -30)
        execute(session, [grant(user.user_id, 100)])
        assert debts(session, user) == {1: (0, 30)}
        back: dict[str, Any] = {"key": "~refund:a", "actor": "system:test"}
        settle_reversals(session, user.user_id, {2: 100}, **back)
        assert (booked_balance(session, user.user_id), debts(session, user)) == (
            0,
            {1: (30, 30)},
        )
        settle_reversals(session, user.user_id, {}, **back)
        assert (booked_balance(session, user.user_id), debts(session, user)) == (
            70,
            {1: (0, 30)},
        )
        assert settle_reversals(session, user.user_id, {}, **back) == []
        check_books(session)

    await in_session(work)


async def test_a_debt_can_be_adjusted_away(in_session: InSession) -> None:
    """Support forgives by an adjustment of what is owed."""

    def work(session: Session) -> None:
        user = from_before(session, -30)
        execute(session, [adjust(user.user_id, 30)])
        assert (booked_balance(session, user.user_id), debts(session, user)) == (0, {1: (0, 30)})

    await in_session(work)


@pytest.mark.parametrize("balance", [-7, -1, 0, 1, 7])
def test_an_opening_is_written_once(balance: int) -> None:
    """Opened books stay as they are; a balance of 0 needs no entry."""
    book = Book(uuid.uuid4(), balance, 0, True, START)
    rules.settle(book)
    written = len(book.entries)
    assert written == (1 if balance else 0)
    rules.settle(book)
    assert len(book.entries) == written
    assert (book.balance, book.debt) == (max(balance, 0), max(-balance, 0))
    assert len(book.lots) == (1 if balance > 0 else 0)


def test_the_opening_is_bound_like_any_lot_where_it_can_be() -> None:
    """No fewer than none are to be back, and no more than a number holds."""
    ledger = Ledger(opening=-10)
    for target in (-1, 2**31 - 10):
        with pytest.raises(ValueError, match="lot 1"):
            ledger.reverse({1: target})
    reversals.reallocate(ledger.book, {}, {1: 2**31 - 11}, key="~r", actor="system:test")
    assert ledger.debts == {1: 2**31 - 1}


@pytest.mark.parametrize(("balance", "version"), [(0, 0), (5, 3)])
def test_an_opening_of_nothing_owes_nothing(balance: int, version: int) -> None:
    """It stands for purchases all spent by then; what the ledger has booked since stays."""
    book = Book(uuid.uuid4(), balance, version, True, START)
    rules.write_late_opening(rules.settle(book))
    assert [(entry.amount, entry.balance_after) for entry in book.entries] == [(0, balance)]
    assert (book.balance, book.lots, book.debts, book.changed_debts) == (
        balance,
        {},
        {},
        frozenset(),
    )


def test_what_was_owed_at_the_beginning_needs_no_naming() -> None:
    """It is to be back for ever, exactly, whatever else is."""
    ledger = Ledger(opening=-30)
    assert ledger.reverse({}) == []
    assert ledger.debts == {1: 30}


@pytest.mark.parametrize("amount", [1, 100])
def test_a_payment_no_longer_named_owes_nothing(amount: int) -> None:
    """One entry says so, and only once."""
    ledger = Ledger()
    payment = ledger.buy(amount)
    ledger.spend(amount)
    ledger.reverse({payment: amount})
    assert ledger.debts == {payment: amount}
    assert len(ledger.reverse({})) == 1
    assert ledger.debts == {}
    assert ledger.reverse({}) == []
