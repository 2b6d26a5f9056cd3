"""Delivery: what is made of answers that come late, in between, or from where an endpoint was."""

import asyncio
import uuid
from typing import Any

import httpcore
import pytest
from sqlalchemy import Engine, event, update

from src.common.database import SessionLocal
from src.common.models.notice_endpoint import NoticeEndpoint
from src.common.notices import endpoints
from src.common.notices.delivery import exchange, sending, to_endpoint
from tests.notices.receiver import Received, receiving
from tests.notices.sent import (
    add_endpoint,
    add_users,
    deliver,
    give,
    make_due,
    outbox,
    state_of,
    statuses,
)

pytestmark = pytest.mark.usefixtures("fresh_database")


async def test_410_of_where_it_was_disables_nothing() -> None:
    """Whoever moves an endpoint may switch the old one off at once."""

    async def answering(_request: Received) -> tuple[int, dict[str, str]]:
        with SessionLocal.begin() as session:
            session.execute(update(NoticeEndpoint).values(url=after.url))
        return 410, {}

    async with receiving(answering) as before, receiving() as after:
        endpoint_id = add_endpoint(before.url)
        give(add_users(1))
        await deliver()
        assert len(before.received) == 1
        with SessionLocal() as session:
            assert session.get_one(NoticeEndpoint, endpoint_id).disabled_at is None
        make_due()
        await deliver()
        assert statuses() == ["delivered"]


async def test_what_became_of_notices_and_of_their_endpoint_has_one_instant() -> None:
    """The clock is read once for both: each reading is a round trip."""
    asked: list[str] = []

    def before_statement(*arguments: Any) -> None:
        asked.append(arguments[2])

    async with receiving() as receiver:
        endpoint_id = add_endpoint(receiver.url)
        give(add_users(1))
        event.listen(Engine, "before_cursor_execute", before_statement)
        try:
            await deliver()
        finally:
            event.remove(Engine, "before_cursor_execute", before_statement)
    [notice] = outbox()
    assert notice.finished_at == state_of(endpoint_id).last_delivered_at
    assert len([each for each in asked if each.startswith("SELECT statement_timestamp()")]) == 1


async def test_whoever_answers_is_in_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only failures one after the other pause an endpoint, not those with a refusal in between."""
    monkeypatch.setattr(to_endpoint, "AT_ONCE_FIRST", 1)

    async def answering(_request: Received) -> tuple[int, dict[str, str]]:
        return 503 if len(receiver.received) % 2 else 400, {}

    async with receiving(answering) as receiver:
        endpoint_id = add_endpoint(receiver.url)
        give(add_users(10))
        await deliver()
        assert len(receiver.received) == 10
        assert state_of(endpoint_id).paused_until is None


async def test_what_one_worker_was_asked_to_wait_another_s_success_does_not_end() -> None:
    """Two that were under way at once: one is asked to wait, the other's notice is taken."""
    begun, asked, passed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def answering(_request: Received) -> tuple[int, dict[str, str]]:
        if len(receiver.received) == 1:
            begun.set()
            await passed.wait()
            return 200, {}
        asked.set()
        return 503, {"Retry-After": "3600"}

    async with receiving(answering) as receiver:
        endpoint_id = add_endpoint(receiver.url)
        give(add_users(1))
        first = asyncio.create_task(deliver())
        await begun.wait()
        give(add_users(1))
        second = asyncio.create_task(deliver())
        await asked.wait()
        await second
        passed.set()
        await first
        assert sorted(statuses()) == ["delivered", "pending"]
        assert has_paused(endpoint_id)


def has_paused(endpoint_id: uuid.UUID) -> bool:
    """Whether it is left alone now."""
    with SessionLocal() as session:
        return endpoint_id not in [each.endpoint_id for each in exchange.targets(session)]


@pytest.mark.parametrize("change", ["moved", "enabled"])
async def test_whoever_moves_or_enables_an_endpoint_need_not_wait(change: str) -> None:
    """How long to leave it alone was said of where it was, or how it was."""

    async def answering(_request: Received) -> tuple[int, dict[str, str]]:
        return 503, {"Retry-After": "3600"}

    async with receiving(answering) as before, receiving() as after:
        endpoint_id = add_endpoint(before.url)
        give(add_users(1))
        await deliver()
        assert has_paused(endpoint_id)
        with SessionLocal.begin() as session:
            if change == "moved":
                endpoints.update_endpoint(session, endpoint_id, url=after.url, is_local=True)
            else:
                endpoints.disable_endpoint(session, endpoint_id, reason="By hand")
                endpoints.enable_endpoint(session, endpoint_id)
        assert not has_paused(endpoint_id)
        assert state_of(endpoint_id).failures == 0


async def test_a_status_in_time_counts_however_long_the_rest_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The endpoint has it: to send it again would tell it twice."""
    timeout_seconds = 3.0

    async def read_on(_response: httpcore.Response) -> None:
        await asyncio.sleep(timeout_seconds)

    monkeypatch.setattr(sending, "_read_on", read_on)
    async with receiving() as receiver:
        add_endpoint(receiver.url)
        give(add_users(1))
        await deliver(notices_timeout_seconds=timeout_seconds)
        assert statuses() == ["delivered"]


async def test_the_whole_address_is_asked_for() -> None:
    """Parameters of the path and a query are part of it."""
    async with receiving() as receiver:
        add_endpoint(f"{receiver.url};v=1?key=2;3")
        give(add_users(1))
        await deliver()
        assert receiver.received[0].target == "/hook;v=1?key=2;3"
