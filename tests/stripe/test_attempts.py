"""Attempts at stored events: counted before they are made, in time, whoever else waits."""

import asyncio
import datetime as dt
import json
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from src.common.models.stripe_event import StripeEvent
from src.common.models.user import User
from src.common.stripe import attempts, inbox
from src.common.stripe.gateway import Gateway
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.wire import parse_event
from src.offline_stripe import Trouble, TroubleKind
from tests.credits.books import booked_balance
from tests.fixtures.api import until
from tests.stripe.loop import Loop
from tests.stripe.payments import make_event, make_session

YESTERDAY = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)


class Killed(BaseException):
    """The process is gone: it catches nothing, and notes nothing."""


def store(db: Session, *objects: tuple[dict[str, Any], str]) -> list[str]:
    """As an endpoint whose process died right after it had stored these; the events' ids."""
    events = [make_event(stripe_object, event_type) for stripe_object, event_type in objects]
    for event in events:
        body = json.dumps(event).encode()
        assert inbox.store_event(db, parse_event(body), body)
    wait(db)
    return [event["id"] for event in events]


def wait(db: Session) -> None:
    """Let all leases and promised times pass."""
    db.execute(update(StripeEvent).values(lease_expires_at=None, next_attempt_at=YESTERDAY))
    db.commit()


def rows(db: Session, event_ids: Iterable[str]) -> list[StripeEvent]:
    """What the inbox says of these events."""
    db.expire_all()
    return [inbox.get_event(db, event_id) for event_id in event_ids]


@pytest.fixture
def deadly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever settles an event dies of it."""

    def die(*_arguments: Any) -> EventAnswer:
        raise Killed

    monkeypatch.setattr(inbox, "finish_event", die)


@pytest.mark.usefixtures("deadly")
def test_an_event_that_kills_its_process_is_dead_in_the_end(
    db: Session, loop: Loop, user: User
) -> None:
    """Each attempt counts though nobody lived to count it; then nobody tries it any more."""
    event_ids = store(db, (make_session(user), "checkout.session.completed"))
    for number in range(2, attempts.ATTEMPTS_MAX + 1):
        with pytest.raises(Killed):
            loop.settle_due()
        [row] = rows(db, event_ids)
        assert (row.status, row.attempts) == ("received", number)
        wait(db)
    assert loop.settle_due() == 0
    [row] = rows(db, event_ids)
    assert (row.status, row.attempts, row.error) == ("dead", 16, attempts.CUT_OFF)
    assert attempts.count_dead_events(db) == 1
    assert loop.settle_due() == 0


@pytest.mark.usefixtures("deadly")
def test_after_a_death_the_next_attempt_waits_for_lease_and_promise(
    db: Session, loop: Loop, user: User
) -> None:
    """A minute at least, and as long as after any other failed attempt."""
    [event_id] = store(db, (make_session(user), "checkout.session.completed"))
    db.execute(update(StripeEvent).values(attempts=9))
    db.commit()
    with pytest.raises(Killed):
        loop.settle_due()
    [row] = rows(db, [event_id])
    now = db.scalars(select(func.clock_timestamp())).one()
    assert row.next_attempt_at is not None
    assert row.lease_expires_at is not None
    assert 450 < (row.next_attempt_at - now).total_seconds() <= 512
    assert 30 < (row.lease_expires_at - now).total_seconds() <= 60


@pytest.mark.usefixtures("deadly")
def test_an_event_that_kills_the_endpoint_is_counted_too(
    db: Session, loop: Loop, user: User
) -> None:
    """Each time that Stripe delivers it."""
    event = make_event(make_session(user), "checkout.session.completed")
    body = json.dumps(event).encode()
    for number in (1, 2, 3):
        with pytest.raises(Killed):
            asyncio.run(loop.processor.receive(parse_event(body), body))
        assert [row.attempts for row in rows(db, [event["id"]])] == [number]


def test_what_needs_no_answer_does_not_wait_for_a_silent_stripe(
    db: Session, loop: Loop, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many that do are due before it: it is settled, they are left to who asks, untried."""
    tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)

    def promise(_attempts: int) -> dt.datetime:
        return tomorrow

    monkeypatch.setattr(attempts, "_promised", promise)  # they would be due again in no time
    asking = store(db, *((intent(), "payment_intent.succeeded") for _ in range(30)))
    paid = store(db, (make_session(user), "checkout.session.completed"))
    db.execute(
        update(StripeEvent)
        .where(StripeEvent.event_id.in_(asking))
        .values(next_attempt_at=YESTERDAY - dt.timedelta(days=1))
    )
    db.commit()
    loop.offline.troubles.add(Trouble(TroubleKind.ERROR, times=1_000))
    assert asyncio.run(loop.processor.settle_due(needs_lookup=False)) == 1
    assert booked_balance(db, user.user_id) == 500
    assert [row.status for row in rows(db, paid)] == ["processed"]
    left = rows(db, asking)
    assert {(row.status, row.attempts, row.needs_lookup) for row in left} == {("received", 1, True)}
    assert asyncio.run(loop.processor.settle_due(needs_lookup=True)) == 30
    assert {(row.status, row.attempts) for row in rows(db, asking)} == {("failed", 2)}


def intent() -> dict[str, Any]:
    """A paid PaymentIntent, whose Checkout Session only Stripe can name."""
    name = f"pi_{uuid.uuid4().hex}"
    return {"id": name, "object": "payment_intent", "livemode": False, "status": "succeeded"}


class SilentGateway(Gateway):
    """Stripe's answers never come; who asked waits."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop.client, 60)
        self.waiting = 0
        self.heard = asyncio.Event()

    async def _call(
        self,
        method: Callable[..., Awaitable[Any]],  # noqa: ARG002  the gateway's signature
        *arguments: Any,  # noqa: ARG002
        **options: str,  # noqa: ARG002
    ) -> dict[str, Any]:
        self.waiting += 1
        await self.heard.wait()
        raise AssertionError("nobody is heard")


async def begin(loop: Loop, gateway: SilentGateway, waiting: int) -> asyncio.Task[int]:
    """Try what asks Stripe, until so many wait for it."""
    object.__setattr__(loop.processor, "gateway", gateway)
    trying = asyncio.create_task(loop.processor.settle_due(needs_lookup=True))
    await until_waiting(gateway, waiting)
    return trying


async def until_waiting(gateway: SilentGateway, waiting: int) -> None:
    """Let the others go on until so many wait for Stripe."""

    async def is_so() -> bool:
        return gateway.waiting >= waiting

    await until(is_so)


def test_events_that_ask_do_not_wait_for_each_other_and_are_handed_back(
    db: Session, loop: Loop
) -> None:
    """All of them ask at once, one that falls due meanwhile too; cut off, they are as before."""
    event_ids = store(db, *((intent(), "payment_intent.succeeded") for _ in range(5)))
    late = event_ids[-1]
    db.execute(update(StripeEvent).values(needs_lookup=True))
    db.execute(
        update(StripeEvent)
        .where(StripeEvent.event_id == late)
        .values(next_attempt_at=func.clock_timestamp() + dt.timedelta(days=1))
    )
    db.commit()

    async def work() -> None:
        gateway = SilentGateway(loop)
        trying = await begin(loop, gateway, 4)
        wait_for = update(StripeEvent).where(StripeEvent.event_id == late)
        db.execute(wait_for.values(next_attempt_at=YESTERDAY))
        db.commit()
        await until_waiting(gateway, 5)
        assert {row.attempts for row in rows(db, event_ids)} == {2}
        trying.cancel()
        await asyncio.wait([trying])
        assert trying.cancelled()

    asyncio.run(work())
    left = rows(db, event_ids)
    assert {(row.status, row.attempts, row.lease_expires_at) for row in left} == {
        ("received", 1, None)
    }


def test_a_settled_event_is_not_counted_again(db: Session, loop: Loop, user: User) -> None:
    """A copy of a processed event costs no attempt."""
    event = make_event(make_session(user), "checkout.session.completed")
    body = json.dumps(event).encode()
    for answer in (EventAnswer.PROCESSED, EventAnswer.ALREADY_PROCESSED):
        assert asyncio.run(loop.processor.receive(parse_event(body), body)) == answer
    assert [row.attempts for row in rows(db, [event["id"]])] == [1]
