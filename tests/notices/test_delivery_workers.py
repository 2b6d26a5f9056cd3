"""Delivery by several workers, and what ends or changes in the midst: at least once, in order."""

import asyncio
import datetime as dt
import re
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import update

from src.common.database import SessionLocal
from src.common.models.credit_notice import CreditNotice
from src.common.models.notice_endpoint import NoticeEndpoint
from src.common.notices.delivery import to_endpoint
from src.common.notices.delivery.messages import Notice
from src.common.notices.delivery.schedule import ATTEMPTS_MAX, Answer
from src.common.notices.delivery.sending import Sender
from tests.fixtures.api import StartApi
from tests.notices.receiver import Received, receiving
from tests.notices.sent import (
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

DISABLED = {"disabled_at": dt.datetime(2030, 1, 1, tzinfo=dt.UTC), "disabled_reason": "By hand"}
LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
pytestmark = pytest.mark.usefixtures("fresh_database")


async def test_what_is_cut_off_is_sent_again_and_nothing_is_lost() -> None:
    """A connection that ends without an answer, or an answer that never comes: tried again."""
    answers: list[str] = ["close", "close", "hang"]
    until_told = asyncio.Event()

    async def answering(_request: Received) -> tuple[int, dict[str, str]] | None:
        how = answers.pop(0) if answers else "take"
        if how == "hang":
            await until_told.wait()
        return None if how == "close" else (200, {})

    async with receiving(answering) as receiver:
        add_endpoint(receiver.url)
        give(add_users(1))
        assert await deliver() == 1  # closed, tried once more at once, closed again
        assert outbox()[0].error == "CONNECTION_LOST: the connection ended without an answer"
        make_due()
        assert await deliver(notices_timeout_seconds=0.2) == 1
        assert outbox()[0].error == "TIMEOUT: the endpoint did not answer in time"
        until_told.set()
        make_due()
        assert await deliver() == 1
        assert statuses() == ["delivered"]
        assert {each.id for each in receiver.received} == {receiver.taken[0].id}
        assert len({each.body for each in receiver.received}) == 1


async def test_what_is_cancelled_is_handed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on SIGTERM: what was delivered is noted, all else is due, its attempt uncounted."""
    monkeypatch.setattr(to_endpoint, "EXCHANGE_SECONDS", 60)
    taken = asyncio.Event()

    async def answering(_request: Received) -> tuple[int, dict[str, str]]:
        if len(receiver.received) > 10:
            taken.set()
            await asyncio.Event().wait()
        return 200, {}

    async with receiving(answering) as receiver:
        add_endpoint(receiver.url)
        give(add_users(20), times=2)
        delivering = asyncio.create_task(deliver())
        await taken.wait()
        delivering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivering
        assert 0 < statuses().count("delivered") <= len(receiver.taken)
        left = [each for each in outbox() if each.status == "pending"]
        assert [each.attempts for each in left] == [0] * len(left)
        receiver.answering = receiving_all
        await deliver()
        assert receiver.taken_by_user() == ids_by_user()


async def receiving_all(_request: Received) -> tuple[int, dict[str, str]]:
    """Take it."""
    return 200, {}


async def test_several_workers_share_the_work_and_keep_the_order() -> None:
    """Each notice is sent by one of them, in order."""
    async with receiving() as receiver:
        add_endpoint(receiver.url)
        give(add_users(60), times=4)
        await asyncio.gather(*(deliver() for _ in range(3)))
        assert receiver.taken_by_user() == ids_by_user()
        assert len(receiver.received) == 240


async def test_a_lease_that_is_over_is_anybody_s() -> None:
    """What a killed worker had claimed comes again, its attempt counted; and no sooner."""
    async with receiving() as receiver:
        add_endpoint(receiver.url)
        give(add_users(1), times=2)
        later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=60)
        with SessionLocal.begin() as session:
            first = outbox(session)[0]
            first.attempts, first.next_attempt_at, first.lease_expires_at = 1, later, later
        assert await deliver() == 0
        make_due()
        assert await deliver() == 2
        assert [each.attempts for each in outbox()] == [2, 1]


async def test_a_notice_that_ends_every_process_is_dead_in_the_end() -> None:
    """Each claim counts, so one that was claimed ten times and never finished is not sent again."""
    async with receiving() as receiver:
        add_endpoint(receiver.url)
        give(add_users(1), times=2)
        with SessionLocal.begin() as session:
            outbox(session)[0].attempts = ATTEMPTS_MAX
        await deliver()
        first, second = outbox()
        assert (first.status, first.error) == ("dead", to_endpoint.CUT_OFF)
        assert second.status == "delivered"
        assert len(receiver.received) == 1


async def test_what_somebody_replayed_meanwhile_stays_as_they_left_it() -> None:
    """An attempt's end is noted on what it began with only; so the replay is sent."""

    async def answering(_request: Received) -> tuple[int, dict[str, str]]:
        if len(receiver.received) == 1:
            with SessionLocal.begin() as session:
                session.execute(update(CreditNotice).values(attempts=0))
        return 200, {}

    async with receiving(answering) as receiver:
        add_endpoint(receiver.url)
        give(add_users(1))
        await deliver()
        assert statuses() == ["pending"]
        make_due()
        await deliver()
        assert statuses() == ["delivered"]


async def test_a_deleted_endpoint_is_sent_nothing() -> None:
    """Also where it goes while it is sent to."""

    async def answering(_request: Received) -> tuple[int, dict[str, str]]:
        with SessionLocal.begin() as session:
            session.delete(session.get_one(NoticeEndpoint, endpoint_id))
        return 200, {}

    async with receiving(answering) as receiver:
        endpoint_id = add_endpoint(receiver.url)
        give(add_users(1), times=2)
        await deliver()
        assert uuid.UUID(receiver.received[0].user)
        make_due()
        assert await deliver() == 0


@pytest.mark.parametrize("change", ["disabled", "moved"])
async def test_what_an_operator_changes_is_honoured_in_the_midst(change: str) -> None:
    """A disabled endpoint is sent nothing more; one that was moved is sent to where it is now."""

    async def answering(_request: Received) -> tuple[int, dict[str, str]]:
        if len(before.received) == 1:
            values = {"url": after.url} if change == "moved" else DISABLED
            with SessionLocal.begin() as session:
                session.execute(update(NoticeEndpoint).values(values))
        return 200, {}

    async with receiving(answering) as before, receiving() as after:
        add_endpoint(before.url)
        give(add_users(200))
        await deliver()
        await deliver()
        left = len(outbox()) - len(before.taken)
        assert left >= 100
        assert len(after.taken) == (left if change == "moved" else 0)


async def test_a_defect_of_ours_at_one_endpoint_is_none_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is left alone for a minute, and what failed is noted with it."""
    send, begin = Sender.send, Sender.__init__
    broken: list[Sender] = []

    async def fail(self: Sender, notice: Notice, secrets: Sequence[bytes]) -> Answer:
        if self in broken:
            raise ValueError
        return await send(self, notice, secrets)

    def note(self: Sender, url: str, **options: Any) -> None:
        begin(self, url, **options)
        if url == wrong.url:
            broken.append(self)

    monkeypatch.setattr(Sender, "send", fail)
    monkeypatch.setattr(Sender, "__init__", note)
    async with receiving() as wrong, receiving() as right:
        endpoint_id = add_endpoint(wrong.url)
        add_endpoint(right.url)
        give(add_users(20))
        await deliver()
        assert (len(wrong.received), len(right.taken)) == (0, 20)
        state = state_of(endpoint_id)
        assert state.last_error == "DEFECT: ValueError, see the worker's log"
        assert state.paused_until is not None
        assert await deliver() == 0


async def test_metrics_tell_of_each_endpoint(start_api: StartApi) -> None:
    """What it has taken, what failed, what waits, what was given up, and how old the oldest is."""

    async def answering(request: Received) -> tuple[int, dict[str, str]]:
        return (500 if request.user == failing else 200), {}

    api = await start_api()
    users = add_users(3)
    failing = str(users[0])
    async with receiving(answering) as receiver:
        endpoint_id = add_endpoint(receiver.url)
        give(users, times=2)
        await deliver()
    with SessionLocal.begin() as session:
        session.execute(update(CreditNotice).values(created_at=LONG_AGO))
    told = (await api.client.get("/metrics")).text
    figures = {
        name: float(value)
        for name, value in re.findall(
            rf'^flashslides_notices_(\w+){{endpoint="{endpoint_id}"}} (\S+)$', told, re.MULTILINE
        )
    }
    assert figures.pop("oldest_seconds") > 86_400
    assert figures == {"delivered": 4, "failed": 1, "pending": 2, "dead": 0}
