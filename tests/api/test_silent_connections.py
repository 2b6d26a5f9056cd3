"""A connection that fell silent while it was idle is given up by those who share it."""

from collections.abc import Generator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import PoolProxiedConnection

from src.common.async_database import get_async_engine
from src.common.credits.engine.connection import EngineConnection
from src.common.postgres import silent_servers
from src.common.postgres.shared_statements import NotAnswered
from src.local_postgres import ConnectionParameters
from tests.fixtures.api import StartApi, make_user
from tests.postgres.test_silent_servers import Wire, wire_to
from tests.stripe.payments import make_event, make_session

if TYPE_CHECKING:
    from src.common.credits.engine.readings import Readings


@pytest.fixture
def wire(fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch) -> Generator[Wire]:
    """A wire to the server, and little patience with it."""
    monkeypatch.setattr(silent_servers, "SILENCE_SECONDS", 0.2)
    with wire_to(fresh_database) as made:
        yield made


async def test_a_silent_connection_fails_one_reading(start_api: StartApi, wire: Wire) -> None:
    """It does not go back to the pool, where a session or the next reading would find it."""
    api = await start_api(
        DATABASE_HOST="127.0.0.1",
        DATABASE_PORT=str(wire.port),
        DATABASE_STATEMENT_TIMEOUT_MS="500",
        DATABASE_ASYNC_POOL_SIZE="1",
        DATABASE_ASYNC_MAX_OVERFLOW="0",
    )
    user = await make_user()
    reads: Readings = api.app.state.readings
    assert await reads.read(user.user_id) is not None
    wire.cut()
    with pytest.raises(NotAnswered):
        await reads.read(user.user_id)
    assert await reads.read(user.user_id) is not None


async def test_events_wait_for_one_silent_connection_of_many(
    start_api: StartApi, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All who wait for a batch would wait for each in turn: after the first, none is tried."""
    api = await start_api(
        DATABASE_HOST="127.0.0.1",
        DATABASE_PORT=str(wire.port),
        DATABASE_STATEMENT_TIMEOUT_MS="500",
    )
    user = await make_user()
    begun: list[object] = []
    begin_on = EngineConnection._begin_on  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    async def noted(connection: EngineConnection, pooled: PoolProxiedConnection) -> object:
        begun.append(pooled)
        return await begin_on(connection, pooled)

    monkeypatch.setattr(EngineConnection, "_begin_on", noted)
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(get_async_engine().connect())
    wire.cut()
    answer = await api.deliver(make_event(make_session(user)))
    assert answer.json() == {"status": "processed"}
    assert len(begun) == 2
