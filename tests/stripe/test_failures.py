"""Processing that fails: the event stays, says why, and is processed when it comes again."""

import asyncio

import pytest
from sqlalchemy import func, select, text

from src.common.async_database import get_async_db, run_in_async_database_transaction
from src.common.models.stripe_event import StripeEvent
from src.common.models.transaction import Transaction
from src.common.stripe.attempts import record_failure
from tests.fixtures.api import Api, StartApi, balance_of, error_type_of, fetch, make_user, until
from tests.stripe.payments import make_event, make_session

REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'no purchase today'; END $$
"""
DIE = """
CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$
"""
# Ways in which PostgreSQL itself refuses a purchase, what undoes each, and what the row says then.
BROKEN = {
    "a constraint": (
        ["ALTER TABLE transactions ADD CONSTRAINT ck_no CHECK (credits_added < 0) NOT VALID"],
        "ALTER TABLE transactions DROP CONSTRAINT ck_no",
        "IntegrityError",
    ),
    "a trigger": (
        [REFUSE, "CREATE TRIGGER t BEFORE INSERT ON transactions EXECUTE FUNCTION refuse()"],
        "DROP TRIGGER t ON transactions",
        "no purchase today",
    ),
    "a trigger at COMMIT": (
        [
            REFUSE,
            """CREATE CONSTRAINT TRIGGER t AFTER INSERT ON transactions
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()""",
        ],
        "DROP TRIGGER t ON transactions",
        "no purchase today",
    ),
    "a backend that is killed": (
        [DIE, "CREATE TRIGGER t BEFORE INSERT ON transactions FOR EACH ROW EXECUTE FUNCTION die()"],
        "DROP TRIGGER t ON transactions",
        "DATABASE_BUSY",
    ),
}


async def execute(*statements: str) -> None:
    """Run statements in a database transaction of their own."""
    async with get_async_db() as session, session.begin():
        connection = await session.connection()
        for statement in statements:
            await connection.exec_driver_sql(statement)


@pytest.mark.parametrize(("breaking", "mending", "why"), BROKEN.values(), ids=BROKEN.keys())
async def test_an_event_that_fails_says_why_and_is_processed_next_time(
    start_api: StartApi, breaking: list[str], mending: str, why: str
) -> None:
    """Accepted; the row has the reason; the next try processes it."""
    api = await start_api()
    user = await make_user(email="ada@example.com")
    event = make_event(make_session(user))
    await execute(*breaking)
    answer = await api.deliver(event)
    assert (answer.status_code, answer.json()) == (200, {"status": "accepted"})
    row = await fetch(select(StripeEvent))
    attempts = 1 if why == "DATABASE_BUSY" else 2  # a busy database is left alone
    assert (row.status, row.attempts) == ("failed", attempts)
    assert why in (row.error or "")
    assert "ada@example.com" not in (row.error or "")
    assert row.next_attempt_at
    assert row.body
    assert await balance_of(user.user_id) == 0
    assert await fetch(select(func.count(Transaction.transaction_id))) == 0
    await execute(mending)
    assert (await api.deliver(event)).json() == {"status": "processed"}
    row = await fetch(select(StripeEvent))
    assert (row.status, row.attempts, row.error, row.next_attempt_at) == (
        "processed",
        attempts + 1,
        None,
        None,
    )
    assert await balance_of(user.user_id) == 500
    assert (await api.deliver(event)).json() == {"status": "already_processed"}


async def test_a_lock_held_past_its_timeout_is_accepted_and_noted(start_api: StartApi) -> None:
    """Somebody holds the user's row: accepted, the row says why, the copy is processed."""
    api = await start_api(DATABASE_LOCK_TIMEOUT_MS="100")
    user = await make_user()
    event = make_event(make_session(user))
    async with get_async_db() as session, session.begin():
        await session.execute(text("SELECT 1 FROM users FOR UPDATE"))
        answer = await api.deliver(event)
    assert (answer.status_code, answer.json()) == (200, {"status": "accepted"})
    row = await fetch(select(StripeEvent))
    assert (row.status, row.attempts) == ("failed", 1)
    assert "lock" in (row.error or "")
    assert (await api.deliver(event)).json() == {"status": "processed"}
    assert await balance_of(user.user_id) == 500


async def test_an_event_that_cannot_even_be_stored_is_5xx(start_api: StartApi) -> None:
    """What is not in the inbox was not received: Stripe must send it again."""
    api = await start_api()
    await execute("ALTER TABLE stripe_events ADD CONSTRAINT ck_no CHECK (false) NOT VALID")
    user = await make_user()
    answer = await api.deliver(make_event(make_session(user)))
    assert (answer.status_code, error_type_of(answer)) == (500, "INTERNAL_ERROR")
    assert await balance_of(user.user_id) == 0


async def test_the_event_is_stored_before_it_is_processed(start_api: StartApi) -> None:
    """While processing still waits for the user's row, the inbox has the event, for everybody."""
    api = await start_api()
    user = await make_user()
    async with get_async_db() as session, session.begin():
        await session.execute(text("SELECT 1 FROM users FOR UPDATE"))
        delivery = asyncio.create_task(api.deliver(make_event(make_session(user))))

        async def is_stored() -> bool:
            return await fetch(select(func.count(StripeEvent.event_id))) == 1

        await until(is_stored)
        assert await fetch(select(StripeEvent.status)) == "received"
        assert not delivery.done()
    assert (await delivery).json() == {"status": "processed"}


async def test_a_session_that_stripe_never_sends_fails_loudly(api: Api) -> None:
    """A signed checkout event we cannot read is kept as failed, its values not in the reason."""
    session = make_session(await make_user(), amount_total="five dollars of ada@example.com")
    answer = await api.deliver(make_event(session))
    assert (answer.status_code, answer.json()) == (200, {"status": "accepted"})
    row = await fetch(select(StripeEvent))
    assert row.status == "failed"
    assert "amount_total" in (row.error or "")
    assert "ada@example.com" not in (row.error or "")


@pytest.mark.parametrize(
    ("status", "error"), [("processed", None), ("ignored", "late"), ("unmatched", "late")]
)
async def test_a_late_failure_leaves_a_settled_event_settled(
    api: Api, status: str, error: str | None
) -> None:
    """A copy settled it between our failure and its note: nobody tries it, processed or not.

    One that is processed stays as it is; of the others the newest failure is worth knowing. The
    attempt was counted when it began.
    """
    await api.deliver(make_event(make_session(await make_user())))
    await execute(f"UPDATE stripe_events SET status = '{status}'")  # noqa: S608
    before = await fetch(select(StripeEvent))
    await run_in_async_database_transaction(
        lambda session: record_failure(
            session, livemode=before.livemode, event_id=before.event_id, error=ValueError("late")
        )
    )
    after = await fetch(select(StripeEvent))
    assert (after.status, after.attempts) == (status, before.attempts)
    assert (after.error, after.next_attempt_at) == (error and f"ValueError: {error}", None)


async def test_a_dead_event_that_fails_again_stays_dead(api: Api) -> None:
    """Whoever replays it reads the new error; the worker does not take it up."""
    await api.deliver(make_event(make_session(await make_user())))
    await execute("UPDATE stripe_events SET status = 'dead', error = 'ValueError: early'")
    before = await fetch(select(StripeEvent))
    await run_in_async_database_transaction(
        lambda session: record_failure(
            session, livemode=before.livemode, event_id=before.event_id, error=ValueError("late")
        )
    )
    after = await fetch(select(StripeEvent))
    assert (after.status, after.error) == ("dead", "ValueError: late")


async def test_waits_between_attempts_grow_and_end_at_an_hour(start_api: StartApi) -> None:
    """Each failure doubles the time to the next attempt: one second first, an hour at most."""
    api = await start_api()
    event = make_event(make_session(await make_user(), amount_total="none"))
    waits: list[float] = []
    for attempts in (0, 4, 13):
        if attempts:
            await execute(f"UPDATE stripe_events SET attempts = {attempts}")  # noqa: S608
        assert (await api.deliver(event)).json() == {"status": "accepted"}
        wait = await fetch(
            select(func.extract("epoch", StripeEvent.next_attempt_at - func.clock_timestamp()))
        )
        waits.append(float(wait))
    assert 0 < waits[0] <= 2 < waits[1] <= 32 < waits[2] <= 3_600
