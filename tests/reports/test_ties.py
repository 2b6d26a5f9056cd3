"""Whatever happens, movements, liability and balances tie, at every instant, in every time zone."""

import datetime as dt
import uuid
from collections import Counter
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.credits import queries
from src.common.models import CreditEntry, CreditLot, CreditPosting
from src.common.models.credit_entry import EntryKind
from src.common.models.credit_lot import LotSource
from src.common.reports import payments
from src.common.reports.liability import Liability
from src.common.reports.movements import COLUMNS, Movements
from src.common.reports.payments import read_payments
from src.common.reports.periods import By, boundaries
from src.common.reports.revenue import Revenue
from src.common.reports.snapshots import Snapshot, take_snapshot
from src.common.reports.ties import require_equal, total_of_balances
from src.common.reports.users import UserFilter, read_users
from tests.credits.clock import settable_clock
from tests.reports.histories import History

STARTS = (
    (dt.datetime(2026, 3, 25, tzinfo=dt.UTC), "Europe/Berlin"),
    (dt.datetime(2026, 10, 29, tzinfo=dt.UTC), "America/New_York"),
    (dt.datetime(2026, 4, 2, tzinfo=dt.UTC), "Australia/Lord_Howe"),
    (dt.datetime(2023, 4, 24, tzinfo=dt.UTC), "Africa/Cairo"),  # midnight itself is left out
)
"""Just before the clocks of a zone change."""
STEPS = 220
REAL_NOW = dt.datetime(9999, 1, 1, tzinfo=dt.UTC)
"""Purchases are noted by the server's own clock, which a test cannot set."""


@pytest.mark.parametrize(("seed", "start"), list(enumerate(STARTS)), ids=str)
def test_figures_tie_whatever_has_happened(
    db: Session, seed: int, start: tuple[dt.datetime, str]
) -> None:
    """By source, with what users' balances as of the instant say, and with what is held."""
    began, zone = start
    with settable_clock(db.connection()):
        history = History(db, seed, start=began, step=dt.timedelta(hours=1))
        history.go_on(STEPS)
        snapshot = take_snapshot(db, now=history.now)
        days = boundaries(began, history.now, By.DAY, ZoneInfo(zone))
        instants = sorted({*history.instants(8), *days} - {began})
        closing = closing_of(Movements(db, snapshot, [began, *instants]))
        for instant in instants:
            balances, held, total = as_of(db, history.ids, instant, history.now)
            liability = Liability(db, snapshot, instant)
            assert liability.credits == balances
            assert sum(row[5] for row in liability.rows()) == held
            assert closing[instant] == balances
            assert total_of_balances(db, snapshot, instant) == total
            movements = Movements(db, snapshot, [began, instant])
            assert movements.closing == balances
            require_equal(instant, total, movements=movements.closing, liability=liability.credits)
            check_money(db, snapshot, [began, instant])
        check_money(db, snapshot, [began, *instants])
        check_payments(db, snapshot, began)
        check_users(db, snapshot, history)


def check_money(db: Session, snapshot: Snapshot, bounds: list[dt.datetime]) -> None:
    """What is owed is what was not earned, of real money and of test mode's; all credits count."""
    real, tests = (
        Liability(db, snapshot, bounds[-1], test_money=test_money) for test_money in (False, True)
    )
    assert Revenue(db, snapshot, bounds).closing == real.cents
    assert Revenue(db, snapshot, bounds, test_money=True).closing == tests.cents
    assert real.credits == tests.credits


def check_payments(db: Session, snapshot: Snapshot, began: dt.datetime) -> None:
    """What became of each purchase's credits is all of them, and part by part what moved."""
    names = [column.name for column in payments.COLUMNS]
    rows = [
        dict(zip(names, row, strict=True)) for row in read_payments(db, snapshot, began, REAL_NOW)
    ]
    assert len(rows) > 5
    parts = names[names.index("credits") + 1 :]
    assert all(isinstance(row[part], int) for row in rows for part in parts)
    assert all(sum(row[part] for part in parts) == row["credits"] for row in rows)
    sums = {part: sum(row[part] for row in rows) for part in ("credits", *parts)}
    moved = moved_of(Movements(db, snapshot, [began, snapshot.now]), "purchase")
    assert sums == {
        "credits": moved["sold"],
        "left": moved["closing"],
        "held": moved["held"],
        "spent": moved["spent"] - moved["reversed"] - moved["adjusted"] - sums["adjusted"],
        "expired": moved["expired"],
        "clawed_back": moved["clawed_back"] - moved["reinstated"],
        "repaid": moved["repaid"],
        "adjusted": taken_of_purchases(db),
    }


def taken_of_purchases(db: Session) -> int:
    """Credits of purchases that operators took, less what was undone of that."""
    kinds: dict[tuple[uuid.UUID, int], str] = {}
    taken = 0
    rows = db.execute(
        select(CreditEntry, CreditPosting.amount, CreditLot.source)
        .join(CreditPosting, _of(CreditPosting, CreditEntry.seq, CreditPosting.seq))
        .join(CreditLot, _of(CreditLot, CreditPosting.lot_seq, CreditLot.seq))
        .order_by(CreditEntry.user_id, CreditEntry.seq)
    )
    for entry, amount, source in rows:
        kinds[entry.user_id, entry.seq] = entry.kind
        undone = kinds.get((entry.user_id, entry.related_seq or 0))
        if source == LotSource.PURCHASE and EntryKind.ADJUSTMENT in {
            entry.kind,
            undone if entry.kind == EntryKind.REVERSAL else None,
        }:
            taken -= amount
    return taken


def _of(model: Any, one: Any, other: Any) -> Any:
    return (model.user_id == CreditEntry.user_id) & (one == other)


def moved_of(movements: Movements, source: str) -> dict[str, int]:
    """The roll-forward of one period and one source, column by column."""
    [row] = [row for row in movements.rows() if row[2] == source]
    return dict(zip([column.name for column in COLUMNS], row, strict=True))


def check_users(db: Session, snapshot: Snapshot, history: History) -> None:
    """Each has, holds and owes what they are told."""
    rows = {row[0]: row[3:6] for row in read_users(db, snapshot, UserFilter())}
    for user_id in history.ids:
        balance = queries.balance(db, user_id, now=history.now)
        assert rows[user_id] == (balance.balance, balance.held, balance.debt)
    owing = {row[0] for row in read_users(db, snapshot, UserFilter(with_debt=True))}
    assert owing == {user_id for user_id, row in rows.items() if row[2]}
    rich = {row[0] for row in read_users(db, snapshot, UserFilter(with_balance=True))}
    assert rich == {user_id for user_id, row in rows.items() if row[0] or row[1]}


def closing_of(movements: Movements) -> dict[dt.datetime, Counter[str]]:
    """Credits by source, at the end of each period."""
    closing: dict[dt.datetime, Counter[str]] = {}
    for _, end, source, *_, balance in movements.rows():
        closing.setdefault(end, Counter())[source] += balance
    return {end: +by_source for end, by_source in closing.items()}


def as_of(
    session: Session, ids: list[uuid.UUID], instant: dt.datetime, now: dt.datetime
) -> tuple[Counter[str], int, int]:
    """What each user is told, added up: credits by source, held credits, and all credits."""
    by_source: Counter[str] = Counter()
    held = total = 0
    for user_id in ids:
        balance = queries.balance(session, user_id, as_of=instant, now=now)
        total += balance.balance
        held += balance.held
        for lot in balance.lots:
            by_source[str(lot.source)] += lot.remaining
    return by_source, held, total
