"""Which users a filter leaves: all of it holds of them."""

import datetime as dt
import uuid

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from src.common.credits.operations import execute
from src.common.models import User
from src.common.reports.snapshots import take_snapshot
from src.common.reports.users import COLUMNS, UserFilter, read_users
from tests.credits import books
from tests.credits.clock import set_clock, settable_clock

YEAR = dt.timedelta(days=365)
NAMES = [column.name for column in COLUMNS]


def found(db: Session, now: dt.datetime, wanted: UserFilter) -> set[uuid.UUID]:
    """Whom the report names."""
    return {row[0] for row in read_users(db, take_snapshot(db, now=now), wanted)}


@pytest.fixture
def now() -> dt.datetime:
    """Some instant."""
    return dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)


def test_who_is_idle_has_neither_moved_credits_nor_signed_in(db: Session, now: dt.datetime) -> None:
    """The instant itself is idle still; a filter beside it leaves fewer."""
    with settable_clock(db.connection()):
        set_clock(db, now - YEAR)
        mover, visitor, sleeper, poor = (books.make_user(db).user_id for _ in range(4))
        db.execute(update(User).values(created_at=now - YEAR))
        execute(db, [books.grant(each, 5) for each in (mover, visitor, sleeper)], now=now - YEAR)
        set_clock(db, now)
        execute(db, [books.spend(mover, 1)], now=now)
        db.execute(update(User).where(User.user_id == visitor).values(last_login_at=now))
        before = now - dt.timedelta(microseconds=1)
        assert found(db, now, UserFilter(idle_since=before)) == {sleeper, poor}
        assert found(db, now, UserFilter(idle_since=now)) == {mover, visitor, sleeper, poor}
        assert found(db, now, UserFilter(idle_since=now - YEAR)) == {sleeper, poor}
        assert found(db, now, UserFilter(idle_since=before, with_balance=True)) == {sleeper}
        assert found(db, now, UserFilter(with_debt=True)) == set()


def test_held_credits_are_a_balance_and_expired_ones_are_none(
    db: Session, now: dt.datetime
) -> None:
    """As of the report's instant, booked or not."""
    with settable_clock(db.connection()):
        set_clock(db, now)
        holder, late = (books.make_user(db).user_id for _ in range(2))
        soon = now + dt.timedelta(hours=1)
        execute(db, [books.grant(holder, 5), books.grant(late, 5, expires_at=soon)], now=now)
        execute(db, [books.open_hold(holder, 5)], now=now)
        with_balance = UserFilter(with_balance=True)
        assert found(db, now, with_balance) == {holder, late}
        assert found(db, soon, with_balance) == {holder}


def test_who_left_is_said(db: Session) -> None:
    """Active, inactive or erased."""
    active, inactive, erased = (books.make_user(db).user_id for _ in range(3))
    db.execute(update(User).where(User.user_id == inactive).values(is_active=False))
    db.execute(
        update(User)
        .where(User.user_id == erased)
        .values(is_active=False, erased_at=dt.datetime.now(dt.UTC))
    )
    rows = read_users(db, take_snapshot(db), UserFilter())
    statuses = {row[0]: dict(zip(NAMES, row, strict=True))["status"] for row in rows}
    assert statuses == {active: "active", inactive: "inactive", erased: "erased"}
