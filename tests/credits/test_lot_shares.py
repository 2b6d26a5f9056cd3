"""What became of each lot: the shares are exact and sum to what was granted, whatever happens."""

import uuid
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from src.common.credits import queries
from src.common.credits.domain.commands import Adjust, Capture, Grant, OpenHold, Reverse, Spend
from src.common.credits.lot_shares import LotShares, lot_shares
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.credit_entry import CreditEntry
from src.common.reports.movements import COLUMNS, Movements
from src.common.reports.snapshots import take_snapshot
from tests.credits.clock import settable_clock
from tests.credits.ledger import START, at, buy, do, someone
from tests.credits.test_balance_history import HOUR, statements_of
from tests.reports.histories import History

SHARES = ("spent", "held", "expired", "gone_back", "taken_back", "remaining")
EARLIEST = START.replace(year=2000)


def of(lot: LotShares) -> dict[str, int]:
    """What became of its credits, without what nothing became of."""
    return {name: amount for name in SHARES if (amount := getattr(lot, name))}


@pytest.mark.parametrize("seed", range(6))
def test_shares_sum_to_what_was_granted_whatever_happened(db: Session, seed: int) -> None:
    """Of every lot, none of them negative; together they are what balance and report say.

    With holds and lots that fell due and nobody booked, money back and debts, things undone.
    """
    with settable_clock(db.connection()):
        life = History(db, seed, start=START, step=HOUR)
        life.go_on(200)
        movements = Movements(db, take_snapshot(db, now=life.now), [EARLIEST, life.now])
    totals: dict[str, Counter[str]] = {}
    for user_id in life.ids:
        lots = lot_shares(db, user_id, limit=1000, now=life.now).items
        now = queries.balance(db, user_id, now=life.now)
        assert {lot.seq: lot.remaining for lot in lots if lot.remaining} == {
            lot.seq: lot.remaining for lot in now.lots
        }
        assert sum(lot.held for lot in lots) == now.held
        for lot in lots:
            assert min(getattr(lot, name) for name in SHARES) >= 0, lot
            assert sum(getattr(lot, name) for name in SHARES) == lot.granted
            totals.setdefault(lot.source, Counter()).update(of(lot))
    check_report(movements, totals)


def check_report(movements: Movements, totals: dict[str, Counter[str]]) -> None:
    """The roll-forward has the same figures, by source."""
    names = [column.name for column in COLUMNS]
    for row in movements.rows():
        said = dict(zip(names, row, strict=True))
        found = totals.pop(said["source"], Counter())
        assert found["held"] == said["held"]
        assert found["expired"] == said["expired"]
        assert found["gone_back"] == said["clawed_back"] + said["repaid"] - said["reinstated"]
        assert found["remaining"] == said["closing"]
    assert totals == {}


def test_each_share_is_what_it_is_called(db: Session) -> None:
    """One of each kind, by hand; captured and retaken credits are spent, undone ones are not."""
    user_id = someone(db)
    gift = do(db, Grant, user_id, amount=100, reference="welcome", expires_at=at(500)).seq
    do(db, Spend, user_id, 1, amount=10)
    kept = do(db, OpenHold, user_id, 2, amount=20, expires_in_seconds=10_000).seq
    do(db, Capture, user_id, 3, hold_seq=kept, amount=5, final=False)
    closed = do(db, OpenHold, user_id, 4, amount=8, expires_in_seconds=10_000).seq
    do(db, Capture, user_id, 5, hold_seq=closed, amount=6)
    do(db, Reverse, user_id, 6, seq=closed, amount=2, reason="late")
    do(db, Adjust, user_id, 7, amount=-7, reason="by mistake")
    do(db, Reverse, user_id, 8, seq=gift, amount=9, reason="too much")
    late = do(db, OpenHold, user_id, 9, amount=4, expires_in_seconds=2).seq
    do(db, Capture, user_id, 12, hold_seq=late, amount=3, if_expired="retake")
    taken = do(db, Adjust, user_id, 13, amount=-30, reason="by mistake").seq
    do(db, Reverse, user_id, 14, seq=taken, amount=None, reason="was none")
    [lot] = lot_shares(db, user_id, now=at(20)).items
    assert of(lot) == {
        "spent": 10 + 5 + 6 - 2 + 3,
        "held": 15,
        "taken_back": 7 + 9,
        "remaining": 100 - 22 - 15 - 16,
    }
    assert (lot.seq, lot.source, lot.reference, lot.made_at) == (gift, "promo", "welcome", at(0))
    [dead] = lot_shares(db, user_id, now=at(500)).items
    assert of(dead) == {"spent": 22, "held": 15, "taken_back": 16, "expired": 47}


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
def test_pages_follow_each_other(db: Session, limit: int) -> None:
    """Each lot once, the newest first, spent ones too; the same statements whatever there is."""
    user_id = someone(db)
    for number in range(5):
        buy(db, user_id, number, amount=10)
    do(db, Spend, user_id, 6, amount=25)
    do(db, OpenHold, user_id, 7, amount=10, expires_in_seconds=100)
    seen: list[Any] = []
    cursor = None
    for _ in range(6):
        page = lot_shares(db, user_id, cursor=cursor, limit=limit, now=at(8))
        seen += [(lot.seq, of(lot)) for lot in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == [
        (5, {"remaining": 10}),
        (4, {"held": 5, "remaining": 5}),
        (3, {"spent": 5, "held": 5}),
        (2, {"spent": 10}),
        (1, {"spent": 10}),
    ]
    assert statements_of(db, lambda: lot_shares(db, user_id, limit=limit, now=at(8))) == 3


def test_a_balance_from_before_the_ledger_is_one_lot(db: Session) -> None:
    """The lot that the first operation will write, and nothing is written."""
    with settable_clock(db.connection()):
        life = History(db, 1, start=START, step=HOUR)
    _nothing, twenty_five, owing, _ = life.ids
    [lot] = lot_shares(db, twenty_five, now=at(1)).items
    assert (lot.source, lot.granted, of(lot)) == ("opening", 25, {"remaining": 25})
    assert lot_shares(db, owing, now=at(1)).items == []
    assert db.scalar(select(func.count()).select_from(CreditEntry)) == 0


def test_nobody_unknown_has_lots(db: Session) -> None:
    """USER_NOT_FOUND; and a cursor of somebody else's making is refused."""
    with pytest.raises(ExceptionWithErrorType) as refusal:
        lot_shares(db, uuid.uuid4())
    assert refusal.value.error_type == "USER_NOT_FOUND"
    with pytest.raises(ExceptionWithErrorType) as refusal:
        lot_shares(db, someone(db), cursor="x")
    assert refusal.value.error_type == "VALIDATION_ERROR"
