"""What several files of the API's tests share."""

from collections.abc import AsyncGenerator

import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncSession

from src.common.async_database import run_in_async_database_transaction
from src.common.credits import ledger
from tests.api.charging_shop import START, Shop
from tests.fixtures.api import Api, make_user


@pytest_asyncio.fixture
async def shop(api: Api, async_db: AsyncSession) -> AsyncGenerator[Shop]:
    """A customer with a thousand credits."""
    assert async_db
    user = await make_user()
    await run_in_async_database_transaction(
        lambda session: ledger.grant(session, user.user_id, START, key="start")
    )
    shop = Shop(api, user)
    shop.add(api.app)
    yield shop
