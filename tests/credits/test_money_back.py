"""Money back on PostgreSQL: what the rules decide is what the tables say, and the books balance."""

import datetime as dt
import uuid
from collections.abc import Iterable, Mapping, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import Row, func, select, text
from sqlalchemy.orm import Session

from src.common import database
from src.common.credits.domain import rules
from src.common.credits.domain.book import Entry
from src.common.credits.domain.commands import Command, Result
from src.common.credits.money_back import settle_reversals
from src.common.credits.operations import execute
from src.common.credits.persistence.storage import lock_users
from src.common.exceptions import ExceptionWithErrorType, NotFound
from src.common.models.credit_entry import CreditEntry
from src.common.models.credit_hold import CreditDebt
from src.common.models.credit_lot import CreditLot
from src.common.models.user import User
from src.common.postgres.errors import RetryableDatabaseError
from tests.credits.books import write_purchase
from tests.credits.memory import EVERYTHING, Ledger, Step, steps
from tests.models.examples import a_user

KEY, ACTOR = "~reversal:re_1", "system:stripe"

UNBALANCED = text("""
    SELECT 'user' AS what FROM users u WHERE u.user_id = :user_id AND (
      u.credits_balance <> (SELECT coalesce(sum(remaining), 0) FROM credit_lots l
        WHERE l.user_id = u.user_id)
      OR u.credits_balance <> (SELECT coalesce(sum(amount), 0) FROM credit_entries e
        WHERE e.user_id = u.user_id)
      OR u.credits_version <> (SELECT count(*) FROM credit_entries e
        WHERE e.user_id = u.user_id))
    UNION ALL
    SELECT 'entry ' || e.seq FROM credit_entries e WHERE e.user_id = :user_id AND e.amount <> (
      SELECT coalesce(sum(amount), 0) FROM credit_postings p
        WHERE (p.user_id, p.seq) = (e.user_id, e.seq))
    UNION ALL
    SELECT 'lot ' || l.seq FROM credit_lots l WHERE l.user_id = :user_id AND l.remaining <> (
      SELECT remaining_after FROM credit_postings p
        WHERE (p.user_id, p.lot_seq) = (l.user_id, l.seq) ORDER BY p.seq DESC LIMIT 1)
""")


class StoredLedger(Ledger):
    """A ledger in memory whose every step is done on PostgreSQL as well, with the same answer."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        user = a_user()
        session.add(user)
        session.flush()
        self.book.user_id = user.user_id

    def pay(self, amount: int) -> uuid.UUID:
        """Write the purchase."""
        return write_purchase(self.session, self.book.user_id, amount).transaction_id

    def ask(self, command: Command) -> Result | None:
        """Put the command to both."""
        try:
            (stored,) = execute(self.session, [command], now=self.book.now)
        except ExceptionWithErrorType:
            stored = None
        expected = super().ask(command)
        assert stored == expected
        return expected

    def reverse(self, targets: Mapping[int, int]) -> list[Entry]:
        """Settle money back on both."""
        stored = self.settle(targets)
        entries = super().reverse(targets)
        assert stored == [rules.result_of(self.book, entry) for entry in entries]
        return entries

    def settle(self, targets: Mapping[int, int], key: str = KEY) -> list[Result]:
        """Settle money back on PostgreSQL alone."""
        return settle_reversals(
            self.session, self.book.user_id, targets, key=key, actor=ACTOR, now=self.book.now
        )

    def entries(self) -> Sequence[CreditEntry]:
        """The journal as booked."""
        return self.session.scalars(
            select(CreditEntry)
            .where(CreditEntry.user_id == self.book.user_id)
            .order_by(CreditEntry.seq)
        ).all()

    def check(self) -> None:
        """The tables say what the book says, and they balance by every trigger and sum."""
        user_id = self.book.user_id
        lots = self.session.execute(
            select(CreditLot.seq, CreditLot.remaining).where(
                CreditLot.user_id == user_id, CreditLot.is_open
            )
        )
        debts = self.session.execute(
            select(CreditDebt.seq, CreditDebt.outstanding).where(
                CreditDebt.user_id == user_id, CreditDebt.outstanding > 0
            )
        )
        balance = self.session.scalar(select(User.credits_balance).where(User.user_id == user_id))
        stored = balance, _by_seq(lots), _by_seq(debts)
        assert stored == self.state
        self.session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
        self.session.execute(text("SET CONSTRAINTS ALL DEFERRED"))
        assert self.session.execute(UNBALANCED, {"user_id": user_id}).all() == []


def _by_seq(rows: Iterable[Row[int, int]]) -> dict[int, int]:
    return {row[0]: row[1] for row in rows}


@settings(
    max_examples=40,
    deadline=None,
    # Every example has a user of its own; they share no more than the database transaction.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(history=steps(*EVERYTHING))
def test_any_history_books_what_the_rules_decide_and_balances(
    db: Session, history: list[Step]
) -> None:
    """Answer for answer, lot for lot and debt for debt, closed and dead lots included."""
    ledger = StoredLedger(db)
    ledger.do(history)
    ledger.buy(1)  # books what has fallen due
    ledger.reverse({payment: ledger.lot(payment).granted for payment in ledger.payments})
    ledger.check()
    ledger.reverse({})
    ledger.check()


def test_what_expired_is_forgiven_as_booked(db: Session) -> None:
    """The lot is long closed; what expired in it is read from the journal."""
    ledger = StoredLedger(db)
    payment = ledger.buy(100, lasts=10)
    ledger.spend(30)
    ledger.book.now += dt.timedelta(seconds=10)
    other = ledger.buy(100)
    ledger.reverse({payment: 100})
    ledger.check()
    assert ledger.remaining == {other: 70}


def test_what_has_fallen_due_counts_and_is_booked_with_the_change(db: Session) -> None:
    """A hold that comes back and a lot that dies, seen by nobody before the refund."""
    ledger = StoredLedger(db)
    payment = ledger.buy(100, lasts=20)
    ledger.hold(60, lasts=10)
    other = ledger.buy(100)
    ledger.spend(10)
    ledger.book.now += dt.timedelta(seconds=20)
    ledger.reverse({payment: 100})
    ledger.check()
    assert ledger.remaining == {other: 90}
    assert [each.kind for each in ledger.entries()[4:]] == ["hold_expiry", "lot_expiry", "clawback"]


def test_the_same_targets_again_write_nothing_not_even_what_fell_due(db: Session) -> None:
    """A delivery that changes nothing leaves no trace, under another key either."""
    ledger = StoredLedger(db)
    payment = ledger.buy(100)
    ledger.grant(30, lasts=10)
    ledger.reverse({payment: 60})
    ledger.book.now += dt.timedelta(seconds=20)
    written = len(ledger.entries())
    assert ledger.settle({payment: 60}) == []
    assert ledger.settle({payment: 60}, key="~reversal:re_2") == []
    assert len(ledger.entries()) == written


def test_the_state_decides_not_the_key(db: Session) -> None:
    """One cause may change the allocation again and again: each entry's key has its own number."""
    ledger = StoredLedger(db)
    payment = ledger.buy(100)
    for target in (60, 0, 60, 100):
        ledger.reverse({payment: target})
    ledger.check()
    assert [each.idempotency_key for each in ledger.entries()[1:]] == [
        f"{KEY}:{seq}" for seq in range(2, 6)
    ]


def test_entries_name_the_payment_they_are_about(db: Session) -> None:
    """The only one there is, the one the caller names, or none."""
    ledger = StoredLedger(db)
    first, second = ledger.buy(100), ledger.buy(100)
    ledger.settle({first: 10})
    ledger.settle({first: 10, second: 10})
    settle_reversals(
        db,
        ledger.book.user_id,
        {first: 20, second: 10},
        key=KEY,
        actor=ACTOR,
        now=ledger.book.now,
        related_seq=first,
    )
    written = ledger.entries()[2:]
    assert [each.related_seq for each in written] == [first, None, first]
    assert {each.actor for each in written} == {ACTOR}


def test_a_debt_alone_is_booked_with_an_entry_of_0(db: Session) -> None:
    """So that the journal shows when it began and when it ended."""
    ledger = StoredLedger(db)
    payment = ledger.buy(100)
    ledger.spend(100)
    ledger.reverse({payment: 40})
    ledger.check()
    ledger.reverse({})
    ledger.check()
    shown = [(each.kind, each.amount, each.related_seq) for each in ledger.entries()[2:]]
    assert shown == [("clawback", 0, payment), ("reinstatement", 0, None)]


def test_what_the_callers_own_code_changed_is_booked_first(db: Session) -> None:
    """`credits_balance += n` before it in the same database transaction counts."""
    ledger = StoredLedger(db)
    payment = ledger.buy(100)
    user = db.get_one(User, ledger.book.user_id)
    user.credits_balance += 50
    (result,) = ledger.settle({payment: 100})
    assert (result.amount, result.balance) == (-100, 50)
    assert user.credits_balance == 50
    total = select(func.sum(CreditLot.remaining)).where(CreditLot.user_id == user.user_id)
    assert db.scalar(total) == 50


def test_an_inactive_users_credits_are_taken_back(db: Session) -> None:
    """Deactivation stops spends, never money back (rule 11)."""
    ledger = StoredLedger(db)
    payment = ledger.buy(100)
    db.get_one(User, ledger.book.user_id).is_active = False
    ledger.reverse({payment: 100})
    ledger.check()
    assert ledger.book.balance == 0


@pytest.mark.usefixtures("fresh_database")
def test_money_back_waits_for_the_users_lock() -> None:
    """Decided under the row lock: not even that nothing changes is said without it."""
    with database.SessionLocal.begin() as session:
        ledger = StoredLedger(session)
        payment = ledger.buy(100)
        ledger.reverse({payment: 60})
    with database.SessionLocal() as holder, database.SessionLocal() as waiter:
        lock_users(holder, [ledger.book.user_id])
        waiter.execute(text("SET lock_timeout = '10ms'"))
        ledger.session = waiter
        with pytest.raises(RetryableDatabaseError):
            ledger.settle({payment: 60})
        waiter.rollback()
        holder.rollback()
        assert ledger.settle({payment: 60}) == []


def test_an_unknown_user_is_not_found(db: Session) -> None:
    """Nothing is written for nobody."""
    with pytest.raises(NotFound):
        settle_reversals(db, uuid.uuid4(), {}, key=KEY, actor=ACTOR)


@pytest.mark.parametrize(
    ("targets", "key"),
    [
        pytest.param({7: 1}, KEY, id="no such lot"),
        pytest.param({1: 101}, KEY, id="more than was granted"),
        pytest.param({1: 10}, "re_1", id="a caller's key"),
        pytest.param({1: 10}, "~" * 245, id="no room for a number"),
    ],
)
def test_a_callers_mistake_writes_nothing(db: Session, targets: dict[int, int], key: str) -> None:
    """Lots are the user's own, numbers within what was granted, keys the ledger's."""
    ledger = StoredLedger(db)
    ledger.buy(100)
    with pytest.raises(ValueError, match=r"lots? |key"):
        ledger.settle(targets, key)
    assert len(ledger.entries()) == 1
