"""The ledger as applications call it: sync, async, reserved for a block, and booked when due."""

import asyncio
import datetime as dt
import uuid
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from src.common.accounts.operations import create_user
from src.common.async_database import AsyncSessionLocal
from src.common.credits import async_ledger, ledger
from src.common.credits.domain.errors import InsufficientCredits
from src.common.credits.reservation import reserve, reserve_async
from src.common.database import SessionLocal, run_in_database_transaction
from src.common.exceptions import Conflict
from src.common.models import CreditHold, User
from src.local_postgres import ConnectionParameters


def user_with(session: Session, amount: int) -> uuid.UUID:
    """A user who was granted `amount` credits."""
    user_id = create_user(session, email=f"{uuid.uuid4()}@example.com").user_id
    ledger.grant(session, user_id, amount, key="start")
    session.commit()
    return user_id


def balance_of(session: Session, user_id: uuid.UUID) -> int:
    """The booked balance, read afresh."""
    return session.execute(select(User.credits_balance).where(User.user_id == user_id)).scalar_one()


class WorkFailedError(Exception):
    """What the work in a reservation raises."""


def test_each_operation_answers_with_its_own_entry(db: Session) -> None:
    """Results carry seq, signed amount and the balance after it."""
    user_id = user_with(db, 100)
    spent = ledger.spend(db, user_id, 30, key="s")
    held = ledger.open_hold(db, user_id, 40, expires_in_seconds=60, key="h")
    renewed = ledger.renew(db, user_id, held.seq, expires_in_seconds=120, key="r")
    kept = ledger.capture(db, user_id, held.seq, 10, key="c")
    adjusted = ledger.adjust(db, user_id, -5, key="a", reason="goodwill taken back")
    results = [(each.seq, each.amount, each.balance) for each in (spent, held, renewed, kept)]
    assert results == [(2, -30, 70), (3, -40, 30), (4, 0, 30), (5, 30, 60)]
    assert adjusted.balance == ledger.balance(db, user_id).balance == 55


def test_a_rolled_back_caller_leaves_nothing(db: Session) -> None:
    """Operations never commit: what the caller rolls back never happened, and its key is free."""
    user_id = user_with(db, 10)
    ledger.spend(db, user_id, 4, key="s")
    db.rollback()
    assert balance_of(db, user_id) == 10
    assert not ledger.spend(db, user_id, 5, key="s").replayed


async def test_async_callers_get_the_same_results(async_db: AsyncSession) -> None:
    """The async functions are the sync ones on the session inside."""
    user = await async_db.run_sync(
        lambda session: create_user(session, email=f"{uuid.uuid4()}@example.com")
    )
    await async_ledger.grant(async_db, user.user_id, 10, key="g")
    first = await async_ledger.spend(async_db, user.user_id, 4, key="s")
    again = await async_ledger.spend(async_db, user.user_id, 4, key="s")
    assert (first.balance, first.replayed, again) == (6, False, first)
    assert again.replayed
    assert (await async_ledger.balance(async_db, user.user_id)).balance == 6


def test_a_loaded_user_shows_the_booked_balance(db: Session) -> None:
    """An operation puts the new balance into the caller's `User`, without a query."""
    user_id = user_with(db, 10)
    user = db.get_one(User, user_id)
    ledger.spend(db, user_id, 3, key="s")
    assert user.credits_balance == 7


def test_a_reservation_keeps_what_was_used(db: Session) -> None:
    """The rest goes back when the block ends."""
    user_id = user_with(db, 10)
    with reserve(SessionLocal, user_id, 8, key="job") as held:
        assert balance_of(db, user_id) == 2
        held.used = 5
    assert balance_of(db, user_id) == 5


def test_a_failed_reservation_gives_everything_back(db: Session) -> None:
    """The exception goes on its way, and nothing was kept."""
    user_id = user_with(db, 10)
    with pytest.raises(WorkFailedError), reserve(SessionLocal, user_id, 8, key="job"):
        raise WorkFailedError
    assert balance_of(db, user_id) == 10


def test_a_reservation_beyond_the_balance_does_no_work(db: Session) -> None:
    """The refusal comes before the block."""
    user_id = user_with(db, 3)
    with (
        pytest.raises(InsufficientCredits),
        reserve(SessionLocal, user_id, 4, key="job"),
    ):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("used", [-1, 9, 1.5, True, "3"])
def test_a_reservation_refuses_to_have_used_what_it_does_not_hold(db: Session, used: Any) -> None:
    """The programmer's error, where the mistake is made; nothing stays held."""
    user_id = user_with(db, 10)
    with (
        pytest.raises(ValueError, match=r"^used: must be an integer, 0 to 8$"),
        reserve(SessionLocal, user_id, 8, key="job") as held,
    ):
        held.used = used
    assert balance_of(db, user_id) == 10


def test_the_history_says_what_was_reserved_for(db: Session) -> None:
    """Hold and capture have the reference, also where the hold expired; the hold the metadata."""
    user_id = user_with(db, 20)
    terms: dict[str, Any] = {"reference": "deck 7", "metadata": {"slides": 3}}
    with reserve(SessionLocal, user_id, 8, key="job", **terms):
        pass
    with reserve(SessionLocal, user_id, 8, key="late", expires_in_seconds=60, **terms):
        assert ledger.expire_due(db, now=dt.datetime.now(dt.UTC) + dt.timedelta(minutes=2)) == 1
    entries = reversed(ledger.history(db, user_id, cursor=None, limit=9).items)
    assert [(it.kind, it.reference, it.metadata) for it in entries][1:] == [
        ("hold", "deck 7", {"slides": 3}),
        ("capture", "deck 7", None),
        ("hold", "deck 7", {"slides": 3}),
        ("hold_expiry", None, None),
        ("spend", "deck 7", None),
    ]
    with (
        pytest.raises(Conflict, match="another request"),
        reserve(SessionLocal, user_id, 8, key="job", reference="deck 8"),
    ):
        pytest.fail("the block must not run")


def test_work_that_failed_is_held_and_charged_when_it_is_tried_again(db: Session) -> None:
    """The same key holds anew what the failure gave back."""
    user_id = user_with(db, 10)
    for _ in range(2):
        with pytest.raises(WorkFailedError), reserve(SessionLocal, user_id, 8, key="job"):
            raise WorkFailedError
    with reserve(SessionLocal, user_id, 8, key="job"):
        assert balance_of(db, user_id) == 2
    assert balance_of(db, user_id) == 2


def test_work_that_was_paid_for_is_not_charged_again(db: Session) -> None:
    """Done again with its key it costs nothing, whatever it uses then, and fails as it likes."""
    user_id = user_with(db, 10)
    for used in (5, 5, 3, 0, 8):
        with reserve(SessionLocal, user_id, 8, key="job") as held:
            held.used = used
        assert balance_of(db, user_id) == 5
    with pytest.raises(WorkFailedError), reserve(SessionLocal, user_id, 8, key="job"):
        raise WorkFailedError
    assert balance_of(db, user_id) == 5


def test_two_tries_of_one_key_are_charged_once_though_the_first_hold_expired(db: Session) -> None:
    """The second try holds anew; whoever ends last gives back what it held."""
    user_id = user_with(db, 20)
    with reserve(SessionLocal, user_id, 8, key="job", expires_in_seconds=60) as first:
        assert ledger.expire_due(db, now=dt.datetime.now(dt.UTC) + dt.timedelta(minutes=2)) == 1
        db.commit()
        with reserve(SessionLocal, user_id, 8, key="job", expires_in_seconds=60) as second:
            assert second.hold_seq != first.hold_seq
            assert balance_of(db, user_id) == 12
        assert balance_of(db, user_id) == 12
    assert balance_of(db, user_id) == 12


async def test_a_cancelled_reservation_gives_everything_back(
    fresh_database: ConnectionParameters,
) -> None:
    """Cancelling the task releases the hold before the task ends."""
    assert fresh_database
    user_id = run_in_database_transaction(
        lambda session: create_user(session, email="ada@example.com")
    ).user_id
    run_in_database_transaction(lambda session: ledger.grant(session, user_id, 10, key="g"))
    working = asyncio.Event()

    async def work() -> None:
        async with reserve_async(AsyncSessionLocal, user_id, 8, key="job"):
            working.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await working.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert run_in_database_transaction(lambda session: balance_of(session, user_id)) == 10


async def test_an_async_reservation_keeps_what_was_used(
    fresh_database: ConnectionParameters,
) -> None:
    """The rest goes back when the block ends; without `used`, all of it is kept."""
    assert fresh_database
    user_id = run_in_database_transaction(
        lambda session: create_user(session, email="ada@example.com")
    ).user_id
    run_in_database_transaction(lambda session: ledger.grant(session, user_id, 10, key="g"))
    async with reserve_async(AsyncSessionLocal, user_id, 8, key="one") as held:
        held.used = 0
    async with reserve_async(AsyncSessionLocal, user_id, 4, key="two"):
        pass
    assert run_in_database_transaction(lambda session: balance_of(session, user_id)) == 6


def test_what_is_due_is_booked_once(db: Session) -> None:
    """A dead lot and an expired hold are booked by the worker's function; again finds nothing."""
    user_id = user_with(db, 10)
    now = dt.datetime.now(dt.UTC)
    ledger.grant(db, user_id, 5, key="p", expires_at=now + dt.timedelta(minutes=1))
    hold = ledger.open_hold(db, user_id, 7, expires_in_seconds=120, key="h")
    later = now + dt.timedelta(minutes=3)
    assert ledger.expire_due(db, now=later) == 1
    assert balance_of(db, user_id) == 10
    assert db.get_one(CreditHold, (user_id, hold.seq)).status == "expired"
    assert ledger.expire_due(db, now=later) == 0


def test_what_was_assigned_is_booked_before_what_is_due(db: Session) -> None:
    """A `+=` not yet booked in the same database transaction keeps its entry, and loses nothing."""
    user_id = user_with(db, 10)
    now = dt.datetime.now(dt.UTC)
    ledger.grant(db, user_id, 5, key="p", expires_at=now + dt.timedelta(minutes=1))
    user = db.get_one(User, user_id)
    user.credits_balance += 7
    assert ledger.expire_due(db, now=now + dt.timedelta(minutes=3)) == 1
    db.commit()
    assert balance_of(db, user_id) == user.credits_balance == 17


def test_nothing_is_booked_before_it_is_due(db: Session) -> None:
    """An hour before the expiry there is nothing to do."""
    user_id = user_with(db, 10)
    now = dt.datetime.now(dt.UTC)
    ledger.grant(db, user_id, 5, key="p", expires_at=now + dt.timedelta(hours=1))
    assert ledger.expire_due(db) == 0
    assert balance_of(db, user_id) == 15
