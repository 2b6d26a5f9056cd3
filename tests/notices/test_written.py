"""Notices of what operations do: which, in which order, saying what, and when none at all."""

import datetime as dt
import uuid
from typing import Any

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import (
    Adjust,
    Capture,
    Grant,
    OpenHold,
    Release,
    Renew,
    Reverse,
    Spend,
)
from src.common.credits.domain.errors import InsufficientCredits
from src.common.credits.operations import execute
from src.common.models.credit_notice import CreditNotice, NoticeType
from src.common.models.notice_endpoint import NoticeEndpoint
from tests.credits.ledger import ask, at, buy, do, someone
from tests.notices.outbox import EVERYTHING, add_endpoint, data_of, notices_of, told


def test_a_grant_is_told_with_its_lot(db: Session) -> None:
    """Which entry, how much, and what kind of credits they are."""
    add_endpoint(db, NoticeType.GRANTED)
    user_id = someone(db)
    do(db, Grant, user_id, amount=50, expires_at=at(60))
    [notice] = notices_of(db)
    assert (notice.user_id, notice.seq, notice.status) == (user_id, 1, "pending")
    assert notice.created_at == at(0)
    assert notice.data == {
        "user_id": str(user_id),
        "seq": 1,
        "kind": "grant",
        "amount": 50,
        "balance": 50,
        "effective_at": "2020-01-01T00:00:00.000000Z",
        "source": "promo",
        "expires_at": "2020-01-01T00:01:00.000000Z",
        "transaction_id": None,
    }


def test_instants_are_in_utc_whatever_the_session_s_time_zone(db: Session) -> None:
    """What is sent is the same text from everywhere."""
    add_endpoint(db, NoticeType.GRANTED)
    db.execute(text("SET LOCAL TIME ZONE 'Asia/Kathmandu'"))
    do(db, Grant, someone(db), amount=50)
    assert data_of(db, NoticeType.GRANTED)[0]["effective_at"] == "2020-01-01T00:00:00.000000Z"


def test_a_purchase_is_told_twice_as_credits_and_as_money(db: Session) -> None:
    """The same entry, and the purchase that paid for it."""
    add_endpoint(db, *EVERYTHING)
    user_id = someone(db)
    buy(db, user_id, amount=500)
    assert told(db) == [(NoticeType.GRANTED, 1), (NoticeType.PURCHASE_CREDITED, 1)]
    granted, credited = notices_of(db)
    assert credited.data == {
        "user_id": str(user_id),
        "seq": 1,
        "transaction_id": granted.data["transaction_id"],
        "credits": 500,
        "amount_paid_cents": 500,
        "currency": "usd",
        "livemode": credited.data["livemode"],
        "balance": 500,
    }
    assert uuid.UUID(credited.data["transaction_id"])


def test_what_is_spent_is_told_however_it_is_spent(db: Session) -> None:
    """At once, by capturing a hold in part and at last, and taken by hand."""
    add_endpoint(db, NoticeType.SPENT)
    user_id = someone(db)
    do(db, Grant, user_id, amount=100)
    do(db, Spend, user_id, amount=5)
    hold = do(db, OpenHold, user_id, amount=20, expires_in_seconds=60)
    do(db, Capture, user_id, hold_seq=hold.seq, amount=3, final=False)
    do(db, Capture, user_id, hold_seq=hold.seq, amount=7)
    do(db, Adjust, user_id, amount=-2, reason="counted twice")
    spent = [
        (each["seq"], each["spent"], each["hold_seq"]) for each in data_of(db, NoticeType.SPENT)
    ]
    assert spent == [(2, 5, None), (4, 3, 3), (5, 7, 3), (6, 2, None)]


def test_holds_are_no_news_until_they_are_captured_or_expire(db: Session) -> None:
    """Opening, renewing and releasing one moves credits that come back."""
    add_endpoint(db, *EVERYTHING)
    user_id = someone(db)
    do(db, Grant, user_id, amount=100)
    hold = do(db, OpenHold, user_id, amount=20, expires_in_seconds=60)
    do(db, Renew, user_id, hold_seq=hold.seq, expires_in_seconds=90)
    do(db, Release, user_id, hold_seq=hold.seq)
    assert told(db) == [(NoticeType.GRANTED, 1)]


def test_a_hold_that_expires_is_told_when_that_is_booked(db: Session) -> None:
    """Before what booked it, with the instant at which it expired."""
    add_endpoint(db, *EVERYTHING)
    user_id = someone(db)
    do(db, Grant, user_id, amount=100)
    do(db, OpenHold, user_id, amount=20, expires_in_seconds=60)
    do(db, Spend, user_id, 90, amount=1)
    assert told(db)[1:] == [(NoticeType.HOLD_EXPIRED, 3), (NoticeType.SPENT, 4)]
    [expired] = data_of(db, NoticeType.HOLD_EXPIRED)
    assert (expired["hold_seq"], expired["amount"], expired["balance"]) == (2, 20, 100)
    assert expired["effective_at"] == "2020-01-01T00:01:00.000000Z"


def test_a_reversal_is_told(db: Session) -> None:
    """With what it undoes."""
    add_endpoint(db, *EVERYTHING)
    user_id = someone(db)
    do(db, Grant, user_id, amount=100)
    do(db, Spend, user_id, amount=30)
    do(db, Reverse, user_id, seq=2, amount=10, reason="it failed")
    assert told(db)[2:] == [(NoticeType.REVERSED, 3)]
    [reversed_] = data_of(db, NoticeType.REVERSED)
    assert (reversed_["amount"], reversed_["reversed_seq"], reversed_["balance"]) == (10, 2, 80)


def test_no_text_of_a_caller_is_in_a_notice(db: Session) -> None:
    """Neither references, reasons, keys, actors nor metadata."""
    add_endpoint(db, *EVERYTHING)
    user_id = someone(db, email="secret@example.com")
    said: dict[str, Any] = {
        "reference": "secret",
        "metadata": {"secret": "secret"},
        "actor": "key:secret",
    }
    do(db, Grant, user_id, amount=100, key="secret-1", **said)
    do(db, Spend, user_id, amount=95, key="secret-2", **said)
    do(db, Adjust, user_id, amount=-5, reason="secret", key="secret-3", **said)
    do(db, Reverse, user_id, seq=2, reason="secret", key="secret-4", **said)
    assert len(notices_of(db)) == 6
    assert "secret" not in str([(each.data, each.error) for each in notices_of(db)])


def test_nobody_is_told_where_nobody_asked(db: Session) -> None:
    """Without an endpoint, and for one that is disabled or asked for something else, no rows."""
    user_id = someone(db)
    do(db, Grant, user_id, amount=100)
    add_endpoint(db, NoticeType.REVERSED)
    disabled = add_endpoint(db, *EVERYTHING)
    off = {"disabled_at": func.now(), "disabled_reason": "it is gone"}
    db.execute(update(NoticeEndpoint).where(NoticeEndpoint.endpoint_id == disabled).values(**off))
    do(db, Grant, user_id, amount=100)
    do(db, Spend, user_id, amount=200)
    assert notices_of(db) == []


def test_an_endpoint_is_honoured_at_once(db: Session) -> None:
    """Nothing is remembered from one statement to the next."""
    user_id = someone(db)
    do(db, Grant, user_id, amount=100)
    first = add_endpoint(db, NoticeType.SPENT)
    do(db, Spend, user_id, amount=1)
    second = add_endpoint(db, NoticeType.SPENT)
    do(db, Spend, user_id, amount=1)
    assert told(db, endpoint_id=first) == [(NoticeType.SPENT, 2), (NoticeType.SPENT, 3)]
    assert told(db, endpoint_id=second) == [(NoticeType.SPENT, 3)]


def test_what_is_refused_replayed_or_rolled_back_is_not_told(db: Session) -> None:
    """A notice is there with its entry, or neither is."""
    add_endpoint(db, *EVERYTHING)
    user_id = someone(db)
    do(db, Grant, user_id, amount=10)
    command = ask(Spend, user_id, amount=10)
    execute(db, [command], now=at(1))
    before = told(db)
    with pytest.raises(InsufficientCredits):
        do(db, Spend, user_id, 2, amount=1)
    [again] = execute(db, [command], now=at(3))
    assert again.replayed
    with db.begin_nested() as savepoint:
        do(db, Grant, user_id, 4, amount=5)
        assert len(told(db)) == len(before) + 1
        savepoint.rollback()
    assert told(db) == before


def test_numbers_follow_the_entries_of_a_batch(db: Session) -> None:
    """One statement with many users' entries: of each, all is told in the order of the entries."""
    add_endpoint(db, *EVERYTHING)
    people = [someone(db) for _ in range(5)]
    grants = [ask(Grant, user_id, amount=20) for user_id in people]
    spends = [ask(Spend, user_id, amount=10) for user_id in people for _ in range(2)]
    execute(db, [*grants, *spends], now=at(0))
    for user_id in people:
        assert told(db, user_id) == [
            (NoticeType.GRANTED, 1),
            (NoticeType.SPENT, 2),
            (NoticeType.SPENT, 3),
        ]
    numbers = select(func.count(CreditNotice.number.distinct()))
    assert db.scalar(numbers) == 15


def test_a_notice_has_its_entry(db: Session) -> None:
    """No foreign key says so: every entry that is told of is there (decision 0063)."""
    add_endpoint(db, *EVERYTHING)
    user_id = someone(db)
    do(db, Grant, user_id, amount=100, expires_at=at(0) + dt.timedelta(days=1))
    do(db, Spend, user_id, amount=95)
    do(db, Spend, user_id, amount=5)
    without = text(
        "SELECT count(*) FROM credit_notices n WHERE n.seq IS NOT NULL AND NOT EXISTS"
        " (SELECT FROM credit_entries e WHERE (e.user_id, e.seq) = (n.user_id, n.seq))"
    )
    assert (len(notices_of(db)), db.scalar(without)) == (5, 0)
