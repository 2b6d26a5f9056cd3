"""What became of a purchase's credits, where more than spends is undone."""

import datetime as dt

from sqlalchemy.orm import Session

from src.common.credits.operations import execute
from src.common.reports.payments import COLUMNS, read_payments
from src.common.reports.snapshots import take_snapshot
from tests.credits import books

LONG_AGO = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
EVER = dt.datetime(9999, 1, 1, tzinfo=dt.UTC)


def test_what_an_operator_took_and_gave_back_was_never_spent(db: Session) -> None:
    """An undone adjustment counts where the adjustment did, an undone spend where the spend did."""
    user = books.make_user(db)
    execute(db, [books.purchase(db, user.user_id, 500)])
    taken, spent = execute(db, [books.adjust(user.user_id, -100), books.spend(user.user_id, 50)])
    execute(db, [books.reverse(user.user_id, taken.seq, 60)])
    execute(db, [books.reverse(user.user_id, spent.seq, 20)])
    [row] = read_payments(db, take_snapshot(db), LONG_AGO, EVER)
    found = dict(zip([column.name for column in COLUMNS], row, strict=True))
    assert (found["adjusted"], found["spent"], found["left"]) == (40, 30, 430)
