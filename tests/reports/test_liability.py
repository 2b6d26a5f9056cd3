"""What is outstanding, and what was paid for it."""

from sqlalchemy.orm import Session

from src.common.reports.liability import Liability
from src.common.reports.movements import Movements
from src.common.reports.snapshots import take_snapshot
from src.common.reports.ties import total_of_balances
from tests.credits.ledger import at


def test_an_empty_ledger_owes_nothing(db: Session) -> None:
    """Neither now nor ever."""
    snapshot = take_snapshot(db, now=at(0))
    for instant in (at(0), at(-5)):
        assert list(Liability(db, snapshot, instant).rows()) == []
        assert list(Movements(db, snapshot, [at(-10), instant]).rows()) == []
        assert total_of_balances(db, snapshot, instant) == 0
