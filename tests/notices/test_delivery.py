"""Delivery: at least once, in order per user, whatever endpoints do, and none holds up another."""

import asyncio
import datetime as dt

import pytest
from sqlalchemy import update
from standardwebhooks import Webhook

from src.common.database import SessionLocal
from src.common.models.notice_endpoint import NoticeEndpoint, NoticeSecret
from src.common.notices.delivery import deliver as delivery
from src.common.notices.delivery import to_endpoint
from src.common.notices.delivery.schedule import ATTEMPTS_MAX
from tests.notices.receiver import Received, receiving
from tests.notices.sent import (
    SECRET,
    add_endpoint,
    add_users,
    deliver,
    give,
    ids_by_user,
    make_due,
    outbox,
    state_of,
    statuses,
)

pytestmark = pytest.mark.usefixtures("fresh_database")


async def test_each_notice_is_delivered_once_signed_and_in_order_of_its_user() -> None:
    """As Standard Webhooks has it: the reference implementation takes every one."""
    async with receiving() as receiver:
        endpoint_id = add_endpoint(receiver.url)
        give(add_users(30), times=3)
        assert await deliver() == 90
        assert set(statuses()) == {"delivered"}
        assert receiver.taken_by_user() == ids_by_user()
        assert len(receiver.received) == 90
        for each in receiver.received:
            payload = Webhook(SECRET).verify(each.body, each.headers)
            assert payload["type"] == "credits.granted"
            assert payload["data"]["user_id"] == each.user
        assert receiver.received[0].headers["content-type"] == "application/json"
        assert receiver.connections <= to_endpoint.AT_ONCE_MAX
        state = state_of(endpoint_id)
        assert (state.delivered, state.failed, state.failures) == (90, 0, 0)
        assert await deliver() == 0


async def test_every_valid_secret_signs() -> None:
    """While one is rotated out, receivers with either take it; one that has expired signs none."""
    other, gone = b"n" * 32, b"g" * 32
    async with receiving() as receiver:
        add_endpoint(receiver.url, secrets=(SECRET, other, gone))
        with SessionLocal.begin() as session:
            session.execute(
                update(NoticeSecret)
                .where(NoticeSecret.secret == gone)
                .values(expires_at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
            )
        give(add_users(1))
        await deliver()
        [request] = receiver.received
        assert len(request.headers["webhook-signature"].split()) == 2
        for secret in (SECRET, other):
            Webhook(secret).verify(request.body, request.headers)
        with pytest.raises(Exception, match="No matching signature"):
            Webhook(gone).verify(request.body, request.headers)


async def test_a_user_s_failure_holds_up_that_user_alone() -> None:
    """Their later notices wait until the first is delivered; everybody else's are."""
    users = add_users(5)
    failing = str(users[0])

    async def answering(request: Received) -> tuple[int, dict[str, str]]:
        return (500 if request.user == failing and len(refused) < 2 else 200), {}

    refused: list[str] = []

    async def noted(request: Received) -> tuple[int, dict[str, str]]:
        status, headers = await answering(request)
        if status == 500:
            refused.append(request.id)
        return status, headers

    async with receiving(noted) as receiver:
        add_endpoint(receiver.url)
        give(users, times=4)
        await deliver()
        expected = ids_by_user()
        assert refused == expected[failing][:1]
        assert receiver.taken_by_user() == {
            user: ids for user, ids in expected.items() if user != failing
        }
        [waiting, *_] = [each for each in outbox() if str(each.user_id) == failing]
        assert (waiting.attempts, waiting.response_status) == (1, 500)
        assert waiting.error == "HTTP_STATUS: the endpoint answered 500"
        make_due()
        await deliver()
        make_due()
        await deliver()
        assert refused == [expected[failing][0]] * 2
        assert receiver.taken_by_user() == expected


async def test_an_endpoint_that_hangs_costs_others_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other has all of its notices while not one of those is answered."""
    monkeypatch.setattr(delivery, "LOOK_SECONDS", 0.01)
    most_came, everything_came = asyncio.Event(), asyncio.Event()
    users = add_users(20)

    async def hang(_request: Received) -> None:
        await everything_came.wait()

    async def answer(_request: Received) -> tuple[int, dict[str, str]]:
        if len(quick.received) == 40:
            most_came.set()
        if len(quick.received) == 60:
            everything_came.set()
        return 200, {}

    async with receiving(hang) as slow, receiving(answer) as quick:
        add_endpoint(slow.url)
        add_endpoint(quick.url)
        give(users, times=2)
        delivering = asyncio.create_task(deliver(notices_timeout_seconds=30))
        await most_came.wait()
        give(users)  # and what comes while it hangs
        await delivering
        assert len(quick.taken) == 60
        assert slow.most <= to_endpoint.AT_ONCE_FIRST
        assert not slow.taken


async def test_a_user_that_hangs_holds_up_no_other_user_of_the_endpoint() -> None:
    """The others' notices are all delivered before it is answered."""
    users = add_users(40)
    hanging = str(users[0])
    others_came = asyncio.Event()

    async def answering(request: Received) -> tuple[int, dict[str, str]]:
        if request.user == hanging:
            await others_came.wait()
        elif len(receiver.received) >= 79:
            others_came.set()
        return 200, {}

    async with receiving(answering) as receiver:
        add_endpoint(receiver.url)
        give(users, times=2)
        await deliver(notices_timeout_seconds=30)
        assert receiver.taken_by_user() == ids_by_user()


async def test_an_endpoint_out_of_reach_is_left_alone_and_its_notices_are_not_used_up() -> None:
    """After three failures in a row nothing is tried for a while; then one at a time."""
    async with receiving() as receiver:
        url = receiver.url
    endpoint_id = add_endpoint(url)  # nobody listens there any more
    give(add_users(50))
    assert await deliver() <= 3 + to_endpoint.AT_ONCE_FIRST
    state = state_of(endpoint_id)
    assert state.failures >= 3
    assert state.paused_until is not None
    assert state.last_error == "CONNECTION_FAILED: no connection to the endpoint"
    assert sum(each.attempts == 0 for each in outbox()) >= 43
    assert all(each.lease_expires_at is None for each in outbox())
    assert await deliver() == 0
    make_due()
    assert await deliver() == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_honoured_within_bounds(status: int) -> None:
    """Nothing is sent to the endpoint until then, and never longer than an hour."""
    answers = [{"Retry-After": "100"}, {"Retry-After": "1000000"}, {}]

    async def answering(_request: Received) -> tuple[int, dict[str, str]]:
        return status, answers.pop(0)

    async with receiving(answering) as receiver:
        endpoint_id = add_endpoint(receiver.url)
        give(add_users(1))
        for seconds in (100, 3_600):
            make_due()
            before = dt.datetime.now(dt.UTC)
            assert await deliver() == 1
            until = state_of(endpoint_id).paused_until
            assert until is not None
            assert dt.timedelta(seconds=seconds - 1) < until - before
            assert until - dt.datetime.now(dt.UTC) <= dt.timedelta(seconds=seconds)
            assert await deliver() == 0


async def test_after_the_last_attempt_a_notice_is_dead_and_the_next_one_goes() -> None:
    """Ten attempts, as the table has it; a later notice of the user waited for all of them."""

    async def answering(request: Received) -> tuple[int, dict[str, str]]:
        return (400 if request.id == ids[0] else 200), {}

    async with receiving(answering) as receiver:
        add_endpoint(receiver.url)
        give(add_users(1), times=2)
        [ids] = ids_by_user().values()
        for attempt in range(1, ATTEMPTS_MAX + 1):
            assert statuses() == ["pending", "pending"]
            make_due()
            assert await deliver() == (2 if attempt == ATTEMPTS_MAX else 1)
        first, second = outbox()
        assert (first.status, first.attempts, first.response_status) == ("dead", 10, 400)
        assert first.finished_at is not None
        assert (second.status, second.attempts) == ("delivered", 1)


async def test_410_disables_the_endpoint() -> None:
    """Nothing more is sent; what waits stays."""

    async def answering(_request: Received) -> tuple[int, dict[str, str]]:
        return 410, {}

    async with receiving(answering) as receiver:
        endpoint_id = add_endpoint(receiver.url)
        give(add_users(20), times=2)
        await deliver()
        assert len(receiver.received) <= to_endpoint.AT_ONCE_FIRST
        with SessionLocal() as session:
            endpoint = session.get_one(NoticeEndpoint, endpoint_id)
            assert endpoint.disabled_reason == to_endpoint.GONE
        assert set(statuses()) == {"pending"}
        make_due()
        assert await deliver() == 0


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (302, {"Location": "http://127.0.0.1:1/elsewhere"}),
        (404, {}),
        (500, {"body": "x" * 1_000_000}),
    ],
)
async def test_whatever_else_is_answered_is_a_failure(status: int, headers: dict[str, str]) -> None:
    """A redirect is not followed; what an answer says is read within bounds, and kept nowhere."""

    async def answering(_request: Received) -> tuple[int, dict[str, str]]:
        return status, dict(headers)

    async with receiving(answering) as receiver:
        add_endpoint(receiver.url)
        give(add_users(1))
        assert await deliver() == 1
        assert len(receiver.received) == 1
        [notice] = outbox()
        assert (notice.status, notice.response_status) == ("pending", status)
        assert notice.error == f"HTTP_STATUS: the endpoint answered {status}"
