"""`/metrics` asks the database seldom, however often it is scraped; who may scrape."""

import asyncio
import uuid

import pytest
from sqlalchemy import text

from src.common.async_database import get_async_engine, run_in_async_database_transaction
from tests.api.test_database_trouble import metric
from tests.credits.crashes import counting
from tests.fixtures.api import Api, StartApi, error_type_of

UP = "flashslides_database_up"
UNMATCHED = "flashslides_unmatched_payments_open"
INSERT = text(
    "INSERT INTO unmatched_payments"
    " (livemode, stripe_object_id, event_id, reason, explanation)"
    " VALUES (false, 'cs_1', 'evt_1', 'UNPAID', 'in a test')"
)


async def test_scrapes_share_one_reading_of_the_database(start_api: StartApi) -> None:
    """Those at once and those that follow while it is fresh; and then they tell what is new."""
    api = await start_api(METRICS_CACHE_SECONDS="3600")
    with counting(get_async_engine().sync_engine) as statements:
        await metric(api, UP)
        once = statements()
    api.app.state.database_figures._fresh_until = 0  # noqa: SLF001  an hour later
    with counting(get_async_engine().sync_engine) as statements:
        answers = await asyncio.gather(*(metric(api, UP) for _ in range(20)))
        answers += [await metric(api, UP) for _ in range(20)]
        assert (set(answers), statements()) == ({1}, once)
    await run_in_async_database_transaction(lambda session: session.execute(INSERT))
    assert await metric(api, UNMATCHED) == 0
    api.app.state.database_figures._fresh_until = 0  # noqa: SLF001  an hour later
    assert await metric(api, UNMATCHED) == 1


async def test_a_database_that_does_not_answer_is_not_asked_each_time(start_api: StartApi) -> None:
    """Nor kept waiting for by every scrape."""
    api = await start_api(
        METRICS_CACHE_SECONDS="3600",
        DATABASE_ASYNC_POOL_SIZE="1",
        DATABASE_ASYNC_MAX_OVERFLOW="0",
        DATABASE_POOL_TIMEOUT_SECONDS="0.2",
    )
    async with get_async_engine().connect():
        assert await metric(api, UP) == 0
    assert await metric(api, UP) == 0
    api.app.state.database_figures._fresh_until = 0  # noqa: SLF001  an hour later
    assert await metric(api, UP) == 1


@pytest.mark.parametrize(
    "sent", [None, "Bearer wrong", "Bearer ", "Bearer tökén", "Basic s3same", "s3same"]
)
async def test_who_has_no_token_learns_nothing(start_api: StartApi, sent: str | None) -> None:
    """401, and the database is not asked; with the token, which is no caller's, all is told."""
    api = await start_api(METRICS_TOKEN="s3same")
    headers = {} if sent is None else {b"Authorization": sent.encode("latin-1")}
    with counting(get_async_engine().sync_engine) as statements:
        answer = await api.client.get("/metrics", headers=headers)
        assert (answer.status_code, error_type_of(answer)) == (401, "AUTHENTICATION_FAILURE")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "flashslides" not in answer.text
        assert statements() == 0
    told = await api.client.get("/metrics", headers={"Authorization": "bearer s3same"})
    assert (told.status_code, UP in told.text) == (200, True)
    assert (await api.get(f"/user/{uuid.uuid4()}", "s3same")).status_code == 401


async def test_without_a_token_set_it_answers_everybody(api: Api) -> None:
    """As it always did."""
    assert await metric(api, UP) == 1
