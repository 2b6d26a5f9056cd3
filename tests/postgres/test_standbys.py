"""After a failover a pooled connection may lead to a standby: nobody is given it."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from src.common.postgres import standbys
from src.common.postgres.errors import STANDBY, RetryableDatabaseError
from src.local_postgres import ConnectionParameters
from tests.postgres.drivers import Driver, settings_for


@pytest.fixture
def demote(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Have a connection's server be a standby from now on; `None`: every server."""
    demoted: list[Any] = []

    def is_standby(raw: Any) -> bool:
        return None in demoted or any(each is raw for each in demoted)

    monkeypatch.setattr(standbys, "is_standby", is_standby)
    return demoted.append


def is_none(_raw: object) -> bool:
    """No server is a standby any more."""
    return False


def pid(session: Session) -> int:
    """Which backend answers."""
    return int(session.execute(text("SELECT pg_backend_pid()")).scalar_one())


async def test_the_server_tells_both_drivers_that_it_is_none(
    driver: Driver, worker_database: ConnectionParameters
) -> None:
    """What we look at is there: a name that nobody reports would never be `on`."""

    def reported(connection: Connection) -> str:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        assert not standbys.is_standby(raw)
        if driver.name == "psycopg":
            return str(raw.pgconn.parameter_status(b"in_hot_standby").decode())
        return str(raw.driver_connection.get_settings().in_hot_standby)

    assert await driver.run(settings_for(worker_database), reported) == ["off"]


@pytest.mark.usefixtures("fresh_database")
async def test_a_connection_that_turns_out_to_lead_to_a_standby_is_replaced(
    driver: Driver, demote: Callable[[Any], None]
) -> None:
    """Unnoticed by who asked: the new one reaches the new primary."""

    def demote_own(session: Session) -> int:
        demote(session.connection().connection.dbapi_connection)
        return pid(session)

    before = await driver.transact(demote_own)
    after = await driver.transact(pid)
    assert after != before
    assert await driver.transact(pid) == after


@pytest.mark.usefixtures("fresh_database")
async def test_where_there_is_nothing_but_a_standby_one_is_to_try_later(
    driver: Driver, demote: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with Retry-After at the API, for reads too: no balance of yesterday."""
    await driver.transact(pid)
    demote(None)
    for _ in range(2):
        with pytest.raises(RetryableDatabaseError) as caught:
            await driver.transact(pid)
        assert (caught.value.sqlstate, caught.value.reason) == ("25006", STANDBY)
    monkeypatch.setattr(standbys, "is_standby", is_none)
    assert await driver.transact(pid)
