"""Events that arrive together over HTTP: the same rows as one by one, and copies among them."""

import asyncio
import random
from collections import Counter
from contextlib import suppress

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from src.common.async_database import get_async_db, run_in_async_database_transaction
from src.common.credits.operations import execute
from src.common.models.stripe_event import StripeEvent
from src.common.models.transaction import Transaction
from src.common.stripe.batches.settling import Together
from src.common.stripe.lookup import Lookup
from tests.credits.books import check_books, grant
from tests.credits.verification.test_verify import corrupt
from tests.fixtures.api import Api, StartApi, balance_of, fetch, make_user, until
from tests.stripe.batches.histories import History
from tests.stripe.payments import make_event, make_session, to_body


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many events each batch had."""
    found: list[int] = []
    settle = Together.settle

    async def noted(together: Together, readings: list[object]) -> object:
        found.append(len(readings))
        return await settle(together, readings)  # type: ignore[arg-type]

    monkeypatch.setattr(Together, "settle", noted)
    return found


async def deliver_all(api: Api, bodies: list[bytes]) -> Counter[str]:
    """All at once; how often each answer."""
    answers = await asyncio.gather(*(api.deliver(body) for body in bodies))
    assert {answer.status_code for answer in answers} == {200}
    return Counter(answer.json()["status"] for answer in answers)


@pytest.mark.parametrize("seed", range(3))
async def test_any_mixture_is_credited_as_one_by_one(
    start_api: StartApi, sizes: list[int], seed: int
) -> None:
    """Two histories of a seed, one delivered event by event, one at once with copies of some."""
    api = await start_api()
    alone, together = [
        await run_in_async_database_transaction(
            lambda session, name=name: History(session, name, seed)  # type: ignore[misc]
        )
        for name in ("alone", "together")
    ]
    for body in alone.bodies:
        await api.deliver(body)
    assert set(sizes) == {1}
    copies = random.Random(seed).choices(together.bodies, k=20)  # noqa: S311  no secret
    await deliver_all(api, [*together.bodies, *copies])
    assert max(sizes) > 1

    def compare(session: Session) -> None:
        expected, found = alone.rows(session), together.rows(session)
        for table in ("transactions", "users", "grants", "lots", "checkout_orders"):
            assert found[table] == expected[table], table
        check_books(session)

    await run_in_async_database_transaction(compare)


async def test_one_at_fault_fails_alone(start_api: StartApi, sizes: list[int]) -> None:
    """The database refuses one user's books: that event waits, the others are credited."""
    api = await start_api()
    users = [await make_user() for _ in range(6)]
    at_fault = users[2].user_id
    await run_in_async_database_transaction(lambda session: execute(session, [grant(at_fault, 10)]))
    corrupt("UPDATE users SET credits_balance = 11 WHERE user_id = :user_id", at_fault)
    bodies = [to_body(make_event(make_session(user))) for user in users]
    assert await deliver_all(api, bodies) == {"processed": 5, "accepted": 1}
    assert max(sizes) > 1
    assert [await balance_of(each.user_id) for each in users] == [500, 500, 11, 500, 500, 500]
    failed = select(StripeEvent).where(StripeEvent.status == "failed")
    row = await fetch(failed)
    assert "LEDGER_UNBALANCED" in str(row.error)


async def test_copies_that_arrive_together_are_one_payment(
    start_api: StartApi, sizes: list[int]
) -> None:
    """One event eight times, and another about the same payment: one purchase, one attempt each."""
    api = await start_api()
    user = await make_user()
    session = make_session(user)
    first, second = to_body(make_event(session)), to_body(make_event(session))
    answers = await deliver_all(api, [first, second] + [first] * 7)
    assert answers == {"processed": 1, "already_processed": 8}
    assert await balance_of(user.user_id) == 500
    assert await fetch(select(func.count(Transaction.transaction_id))) == 1
    assert await fetch(select(func.sum(StripeEvent.attempts))) == 2
    assert sizes


async def test_an_application_that_ends_finishes_what_it_took(
    start_api: StartApi, sizes: list[int]
) -> None:
    """Whoever gives up waiting leaves the batch to its end, and `aclose` waits for that."""
    api = await start_api()
    user = await make_user()
    waiting = asyncio.create_task(api.deliver(to_body(make_event(make_session(user)))))

    async def has_begun() -> bool:
        return bool(sizes)

    await until(has_begun)
    waiting.cancel()
    await api.app.state.arrivals.aclose()
    with suppress(asyncio.CancelledError):  # unless it was answered by then
        await waiting
    assert await balance_of(user.user_id) == 500


async def test_a_bug_of_a_batch_is_told_and_the_events_go_by_themselves(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is refused: the road of single events is still there."""
    api = await start_api()
    users = [await make_user() for _ in range(3)]

    def fail(*_arguments: object, **_options: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("src.common.stripe.batches.settling.decide", fail)
    with capture_logs() as logs:
        bodies = [to_body(make_event(make_session(user))) for user in users]
        assert await deliver_all(api, bodies) == {"processed": 3}
    told = [each for each in logs if each["event"] == "Events go by themselves"]
    assert told
    assert {each["error_type"] for each in told} == {"KeyError"}


async def test_what_a_batch_logs_is_of_no_single_request(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is begun by one request and settles others': none of them is named by its lines."""
    api = await start_api()
    user = await make_user()
    named: list[dict[str, object]] = []

    def fail(*_arguments: object, **_options: object) -> None:
        named.append(get_contextvars())
        raise KeyError("a bug")

    monkeypatch.setattr("src.common.stripe.batches.settling.decide", fail)
    assert await deliver_all(api, [to_body(make_event(make_session(user)))]) == {"processed": 1}
    assert named == [{}]


async def test_an_event_that_cannot_be_read_is_stored_all_the_same(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in reading one event keeps it from nothing: its row says why, a worker tries again."""
    api = await start_api()
    user = await make_user()

    async def fail(*_arguments: object) -> None:
        raise KeyError("a bug")

    body = to_body(make_event(make_session(user)))
    with monkeypatch.context() as patch:
        patch.setattr(Lookup, "facts_of", fail)
        assert await deliver_all(api, [body]) == {"accepted": 1}
        assert "KeyError" in str((await fetch(select(StripeEvent))).error)
    assert await deliver_all(api, [body]) == {"processed": 1}


async def test_who_waits_for_a_lock_holds_up_nobody(start_api: StartApi) -> None:
    """Application code is about to commit the purchase of one: the others do not wait for it."""
    api = await start_api(DATABASE_LOCK_TIMEOUT_MS="400")
    users = [await make_user() for _ in range(3)]
    sessions = [make_session(user) for user in users]
    async with get_async_db() as other, other.begin():
        written = {"stripe_session_id": sessions[0]["id"], "amount_paid_cents": 500}
        other.add(Transaction(user_id=users[1].user_id, credits_added=500, **written))
        await other.flush()
        answers = await deliver_all(api, [to_body(make_event(each)) for each in sessions])
        assert answers == {"processed": 2, "accepted": 1}
        await other.rollback()
    assert [await balance_of(each.user_id) for each in users] == [0, 500, 500]


async def test_a_batch_that_finds_no_database_is_refused(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What keeps it from beginning is told to all who wait; those after them are credited."""
    api = await start_api()
    user = await make_user()

    def fail(*_arguments: object) -> str:
        raise KeyError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr("src.common.stripe.batches.arrivals.begin_look_ups", fail)
        bodies = [to_body(make_event(make_session(user))) for _ in range(3)]
        answers = await asyncio.gather(*(api.deliver(body) for body in bodies))
        assert {answer.status_code for answer in answers} == {500}
    assert await deliver_all(api, bodies) == {"processed": 3}
    assert await balance_of(user.user_id) == 1_500
