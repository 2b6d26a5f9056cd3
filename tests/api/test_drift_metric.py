"""`/metrics` tells what the workers found in the books, and what they could not do."""

import math
import uuid

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncSession

from src.api.src import scrapes
from src.common import worker_failures
from src.common.credits import unbookable
from src.common.models import CreditVerification
from src.common.postgres.kept_errors import KeptError
from src.common.settings import get_settings
from tests.api.test_database_trouble import metric
from tests.fixtures.api import Api
from tests.models.examples import a_user


async def test_the_scrape_tells_of_drift(api: Api, async_db: AsyncSession) -> None:
    """0 and for ever ago at first; then what this pass or the last one found, whichever is more."""
    users, age = "flashslides_credits_drift_users", "flashslides_credits_drift_age_seconds"
    assert (await metric(api, users), await metric(api, age)) == (0, math.inf)
    row = {
        "cursor": uuid.uuid4(),
        "differing_users": 2,
        "last_pass_users": 10,
        "last_pass_differing_users": 3,
        "last_pass_ended_at": text("clock_timestamp() - interval '1 hour'"),
    }
    await async_db.execute(insert(CreditVerification).values(row))
    assert await metric(api, users) == 3
    assert 3_600 <= await metric(api, age) < 7_200
    await async_db.execute(text("UPDATE credit_verifications SET last_pass_differing_users = 1"))
    assert await metric(api, users) == 2


async def test_where_no_worker_is_to_verify_no_time_has_passed(
    api: Api, async_db: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No alert waits for what CREDITS_VERIFY_INTERVAL_SECONDS=0 means never to happen."""
    assert async_db
    never = get_settings().model_copy(update={"credits_verify_interval_seconds": 0})
    monkeypatch.setattr(scrapes, "get_settings", lambda: never)
    assert await metric(api, "flashslides_credits_drift_age_seconds") == 0


async def test_the_scrape_tells_whom_and_what_the_workers_could_not_do(
    api: Api, async_db: AsyncSession
) -> None:
    """Users who cannot be booked, as long as nobody books them; failures by kind of work."""
    users, failures = "flashslides_credits_unbookable_users", "flashslides_worker_failures"
    assert await metric(api, users) == 0
    assert await metric(api, f'{failures}{{work="refunds"}}') == 0
    user = a_user()
    async_db.add(user)
    await async_db.flush()
    error = KeptError("ValueError", "in a test")
    await async_db.run_sync(unbookable.note, user.user_id, error)
    for _ in range(2):
        await async_db.run_sync(worker_failures.note, "bookings", error)
    assert await metric(api, users) == 1
    assert await metric(api, f'{failures}{{work="bookings"}}') == 2
    await async_db.execute(text("UPDATE credit_booking_failures SET credits_version = -1"))
    assert await metric(api, users) == 0
