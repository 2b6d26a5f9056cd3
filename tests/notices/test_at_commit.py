"""The second form of the triggers tells the same: row by row, when the triggers are asked."""

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import Grant, Spend
from src.common.credits.operations import execute
from src.common.database_settings import LedgerTriggers
from src.common.models.credit_notice import NoticeType
from src.common.postgres.ledger_triggers_form import put_in_place
from tests.credits.ledger import ask, at, buy, do, someone
from tests.notices.outbox import EVERYTHING, add_endpoint, notices_of, told
from tests.notices.test_falls import EXHAUSTED, LINES, LOW, Life, Observer, take_back

Commit = Callable[[], None]


@pytest.fixture
def commit(db: Session) -> Commit:
    """What the triggers do when a database transaction ends, with the second form in place."""
    assert put_in_place(db.connection(), LedgerTriggers.COMMIT)

    def end() -> None:
        db.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
        db.execute(text("SET CONSTRAINTS ALL DEFERRED"))

    end()
    return end


@pytest.mark.parametrize("seed", range(2))
def test_whoever_has_a_memory_would_tell_the_same(db: Session, commit: Commit, seed: int) -> None:
    """As of the first form; instants differ, because all of this is one database transaction."""
    user_id = someone(db)
    life = Life(db, user_id, Random(seed), pauses=(1, 7, 15))  # noqa: S311  to be repeatable
    endpoints = {line: add_endpoint(db, LOW, low_threshold=line) for line in LINES}
    endpoints[0] = add_endpoint(db, EXHAUSTED)
    owing = add_endpoint(db, NoticeType.DEBT_OPENED, NoticeType.DEBT_SETTLED)
    observer = Observer(db, user_id, sorted(endpoints))
    for number in range(60):
        life.go_on(number)
        commit()
        observer.look()
    assert observer.told
    for line, endpoint_id in endpoints.items():
        assert told(db, user_id, endpoint_id) == observer.told.get(line, [])
    debts = [(each.type, each.data["payment_seq"]) for each in notices_of(db, user_id, owing)]
    assert Counter(debts) == Counter(observer.debts)


def test_a_purchase_is_told_with_its_lot(db: Session, commit: Commit) -> None:
    """Though the entry's row may be written before its lot's."""
    add_endpoint(db, *EVERYTHING)
    user_id = someone(db)
    bought = buy(db, user_id, amount=500)
    assert told(db) == []
    commit()
    assert told(db) == [(NoticeType.GRANTED, 1), (NoticeType.PURCHASE_CREDITED, 1)]
    assert notices_of(db)[0].data["source"] == "purchase"
    do(db, Spend, user_id, 1, amount=500)
    take_back(db, user_id, {bought.seq: 500}, 2)
    commit()
    assert [kind for kind, _ in told(db)[2:]] == [
        *(NoticeType.SPENT, LOW, EXHAUSTED, NoticeType.DEBT_OPENED)
    ]


def test_of_several_operations_at_one_instant_the_last_balance_counts(
    db: Session, commit: Commit
) -> None:
    """As of the first form; each entry is told all the same."""
    add_endpoint(db, LOW, NoticeType.SPENT, low_threshold=10)
    ada, bob = someone(db), someone(db)
    execute(db, [ask(Grant, user_id, amount=20) for user_id in (ada, bob)], now=at(0))
    commit()
    spends = [ask(Spend, user_id, amount=15) for user_id in (ada, bob)]
    execute(db, [*spends, ask(Grant, ada, amount=15)], now=at(1))
    commit()
    assert told(db, ada) == [(NoticeType.SPENT, 2)]
    assert told(db, bob) == [(NoticeType.SPENT, 2), (LOW, 2)]
