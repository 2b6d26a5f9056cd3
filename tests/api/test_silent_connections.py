"""A connection that fell silent while it was idle is given up by those who share it."""

from collections.abc import Generator

import pytest

from src.common.credits.engine.readings import ReadingFailed, Readings
from src.common.postgres import silent_servers
from src.local_postgres import ConnectionParameters
from tests.fixtures.api import StartApi, make_user
from tests.postgres.test_silent_servers import Wire, wire_to


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
    with pytest.raises(ReadingFailed):
        await reads.read(user.user_id)
    assert await reads.read(user.user_id) is not None
