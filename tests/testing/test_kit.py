"""The testing kit: databases, clock, fake payments, and an assertion that can fail."""

import datetime as dt
import uuid

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from src.common.async_database import get_async_db
from src.common.credits import async_ledger, ledger, requests
from src.common.credits.engine.engine import Engine
from src.common.database import SessionLocal
from src.common.exceptions import ExceptionWithErrorType
from src.common.models import StripeReversal, Transaction, User
from src.common.postgres.migrations import alembic_config
from src.common.settings import get_settings
from src.testing import (
    Database,
    FrozenClock,
    assert_books_balance,
    async_testing,
    dispute,
    fail_refund,
    make_user,
    pay,
    refund,
    win_dispute,
)
from tests.credits.books import triggers_off

DAY = dt.timedelta(days=1)


@pytest.mark.parametrize("_time", range(2))
def test_a_test_finds_nothing_of_another(flashslides_session: Session, _time: int) -> None:
    """Both commit the same address."""
    assert flashslides_session.query(User).count() == 0
    make_user(flashslides_session, 5, email="same@example.com")
    flashslides_session.commit()


def test_the_schema_is_that_of_the_migrations(flashslides_database: Database) -> None:
    """The clock changes no default and no type, as far as Alembic sees."""
    assert flashslides_database
    command.check(alembic_config())


def test_damage_is_named(flashslides_session: Session) -> None:
    """Who, which entry, what should be there and what is; others' books still balance."""
    db = flashslides_session
    sound, damaged = make_user(db, 10), make_user(db, 10)
    ledger.spend(db, damaged.user_id, 4, key="s")
    assert_books_balance(db)
    with triggers_off(db, "credit_lots"):
        db.execute(text("UPDATE credit_lots SET remaining = 7 WHERE remaining = 6"))
    with pytest.raises(AssertionError) as difference:
        assert_books_balance(db, damaged)
    told = str(difference.value)
    assert "The books of 1 of 1 users do not balance:" in told
    assert f"user {damaged.user_id}, entry 1: " in told
    assert "should be 6, and is 7" in told
    assert_books_balance(db, sound.user_id)
    with pytest.raises(AssertionError, match="1 of 2 users"):
        assert_books_balance(db)


def test_nobody_has_no_books(flashslides_session: Session) -> None:
    """A wrong id is no success."""
    with pytest.raises(AssertionError, match="There is no user"):
        assert_books_balance(flashslides_session, uuid.uuid4())


def test_an_assigned_balance_is_booked_before_it_is_looked_at(flashslides_session: Session) -> None:
    """What the commit would book is no difference."""
    user = make_user(flashslides_session, 10)
    user.credits_balance += 5
    assert_books_balance(flashslides_session, user)
    assert ledger.balance(flashslides_session, user.user_id).balance == 15


async def test_the_clock_holds_for_everybody(
    flashslides_clock: FrozenClock, flashslides_database: Database
) -> None:
    """Both drivers, the batch engine, strangers' connections, columns' defaults, the triggers."""
    clock = flashslides_clock
    clock.move_to(dt.datetime(2040, 2, 29, 12, tzinfo=dt.UTC))
    with SessionLocal.begin() as db:
        user = make_user(db, 10, expires_at=clock.now + DAY)
    assert user.created_at == clock.now
    async with get_async_db() as async_db, async_db.begin():
        spent = await async_ledger.spend(async_db, user.user_id, 1, key="s")
    async with Engine.from_settings(get_settings()) as engine:
        given = await engine.execute(requests.grant(user.user_id, 2, key="g"))
    assert spent.created_at == given.created_at == clock.now
    with flashslides_database.connect() as stranger:
        for name in ("now", "clock_timestamp", "statement_timestamp", "transaction_timestamp"):
            row = stranger.execute(f"SELECT {name}()".encode()).fetchone()
            assert row == (clock.now,)
    clock.shift(days=1)
    with SessionLocal.begin() as db:
        assert ledger.balance(db, user.user_id).balance == 2
        assert ledger.spend(db, user.user_id, 1, key="t").balance == 1
        assert_books_balance(db, user)


def test_a_clock_that_goes_back_takes_nothing_back(
    flashslides_clock: FrozenClock, flashslides_session: Session
) -> None:
    """The next entry counts from the last one's instant; new users begin in the past."""
    clock, db = flashslides_clock, flashslides_session
    begun = clock.now
    user = make_user(db, 10)
    db.commit()
    clock.shift(days=-400)
    assert ledger.spend(db, user.user_id, 1, key="s").created_at == begun
    newcomer = make_user(db, 10)
    assert newcomer.created_at == clock.now == begun - 400 * DAY
    db.commit()
    assert_books_balance(db)
    clock.release()
    assert make_user(db).created_at >= begun


def test_a_clock_needs_a_time_zone(flashslides_clock: FrozenClock) -> None:
    """An instant without one is no instant."""
    with pytest.raises(ExceptionWithErrorType) as refusal:
        flashslides_clock.move_to(dt.datetime(2030, 1, 1))  # noqa: DTZ001  that is the point
    assert refusal.value.details == {"field": "instant"}


def test_a_fake_payment_is_in_the_tables_of_a_real_one(flashslides_session: Session) -> None:
    """A purchase with its PaymentIntent, and a reversal for each refund and dispute."""
    db = flashslides_session
    user = make_user(db)
    payment = pay(db, user, credits=300, amount_cents=900, currency="eur")
    fail_refund(db, refund(db, payment, 300))
    win_dispute(db, dispute(db, payment, 600))
    refund(db, payment, 90)
    purchase = db.get_one(Transaction, payment.transaction_id, populate_existing=True)
    assert (purchase.user_id, purchase.credits_added, purchase.currency) == (
        user.user_id,
        300,
        "eur",
    )
    assert (purchase.refunded_cents, purchase.disputed_cents) == (90, 0)
    found = {(each.kind, each.status, each.amount_cents) for each in db.query(StripeReversal)}
    assert found == {
        ("refund", "failed", 300),
        ("dispute", "reinstated", 600),
        ("refund", "succeeded", 90),
    }
    assert ledger.balance(db, user.user_id).balance == 270
    assert_books_balance(db, user)


def test_a_payment_that_would_not_be_credited_is_refused(flashslides_session: Session) -> None:
    """A test that expects credits hears why there are none."""
    with pytest.raises(ValueError, match="USER_UNKNOWN"):
        pay(flashslides_session, uuid.uuid4())


async def test_the_async_functions_are_the_same(flashslides_async_session: AsyncSession) -> None:
    """Each, once."""
    db = flashslides_async_session
    user = await async_testing.make_user(db, credits=1)
    payment = await async_testing.pay(db, user)
    await async_testing.fail_refund(db, await async_testing.refund(db, payment))
    await async_testing.win_dispute(db, await async_testing.dispute(db, payment))
    await async_testing.assert_books_balance(db, user)
    assert (await async_ledger.balance(db, user.user_id)).balance == 501
    await db.commit()
