"""What `init_db` and `init_async_db` find out before the first request."""

import os
import socket
import sys
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import text
from structlog.testing import capture_logs

from src.common import async_database, database
from src.common.async_database import get_async_db, init_async_db
from src.common.database import SessionLocal, init_db
from src.common.exceptions import DatabaseBusy, SettingsError
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters, running_server
from tests.fixtures.folders import folder_for_data
from tests.postgres.drivers import Driver, open_connection

POOLS = {
    "DATABASE_POOL_SIZE": "4",
    "DATABASE_MAX_OVERFLOW": "3",
    "DATABASE_ASYNC_POOL_SIZE": "2",
    "DATABASE_ASYNC_MAX_OVERFLOW": "1",
    "CREDITS_ENGINE_LANES": "1",
    "CREDITS_ENGINE_SIDE_LANES": "1",
}
"""Fourteen connections a process."""


def _set(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()


def _allowed(server: ConnectionParameters) -> int:
    with open_connection(server) as connection:
        shown = [
            connection.execute(f"SHOW {name}".encode()).fetchone()
            for name in ("max_connections", "superuser_reserved_connections")
        ]
    most, reserved = (int(row[0]) for row in shown if row is not None)
    return most - reserved


def test_pools_that_exceed_the_server_are_warned_of_with_the_numbers(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all processes together, one connection more than the server gives is too many."""
    allowed = _allowed(fresh_database)
    _set(monkeypatch, **POOLS, WEB_CONCURRENCY=str(allowed // 14 + 1))
    with capture_logs() as logs:
        init_db()
    [warning] = logs
    assert warning["log_level"] == "warning"
    assert warning["connections_wanted"] == (allowed // 14 + 1) * 14
    assert warning["connections_allowed"] == allowed
    assert warning["processes"] == allowed // 14 + 1


def test_pools_that_just_fit_are_not_warned_of(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server gives to ordinary roles may be used up to the last connection."""
    rest = _allowed(fresh_database) - 10
    _set(monkeypatch, **POOLS | {"DATABASE_POOL_SIZE": str(rest)}, WEB_CONCURRENCY="1")
    with capture_logs() as logs:
        init_db()
    assert logs == []


def test_a_pooler_s_clients_are_the_pooler_s_to_count(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a pooler the server's limit says nothing about our pools."""
    assert fresh_database
    _set(monkeypatch, WEB_CONCURRENCY="1000", DATABASE_POOLER="transaction")
    with capture_logs() as logs:
        init_db()
    assert logs == []


async def test_a_start_without_a_server_says_that_it_is_busy(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sides fail with the one error that a supervisor may retry on."""
    assert fresh_database
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    _set(monkeypatch, DATABASE_PORT=str(port))
    with pytest.raises(DatabaseBusy):
        init_db()
    with pytest.raises(DatabaseBusy):
        await init_async_db()


async def test_a_start_with_a_server_succeeds(fresh_database: ConnectionParameters) -> None:
    """The documented start-up calls return, and the engines work after them."""
    init_db()
    await init_async_db()
    with SessionLocal() as db:
        found = db.execute(text("SELECT current_database()")).scalar_one()
    assert found == fresh_database.database


@pytest.fixture
def parent() -> Generator[Path]:
    """A folder that root's servers may pass, which run as another account."""
    with folder_for_data() as folder:
        yield folder


@pytest_asyncio.fixture
async def data_folder(parent: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Path]:
    """No DATABASE_HOST, and a data folder for the embedded server that does not exist yet."""
    for name in list(os.environ):
        if name.startswith("DATABASE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FLASHSLIDES_DATA_DIR", str(parent / "data"))
    await _forget_engines()
    yield parent / "data"
    await _forget_engines()


@pytest.fixture
def damaged_data_folder(data_folder: Path) -> Path:
    """The same, where somebody edited the facts by hand."""
    data_folder.mkdir()
    (data_folder / "connection.json").write_text("no JSON")
    return data_folder


async def _forget_engines() -> None:
    database.dispose_db()
    await async_database.dispose_async_db()
    get_settings.cache_clear()


async def test_an_engine_imported_before_the_embedded_server_exists_works_after(
    data_folder: Path,
) -> None:
    """First the error that says what to do; then, with the very same engines, an answer."""
    from src.common.async_database import async_engine
    from src.common.database import engine

    with pytest.raises(SettingsError, match="flashslides db start"):
        init_db()
    with pytest.raises(SettingsError, match="flashslides db start"):
        await init_async_db()
    with running_server(data_folder) as server:
        init_db()
        await init_async_db()
        query = text("SELECT inet_server_port()")
        with engine.connect() as connection:
            assert connection.execute(query).scalar_one() == server.connection.port
        async with async_engine.connect() as async_connection:
            answer = await async_connection.execute(query)
            assert answer.scalar_one() == server.connection.port
        async with get_async_db() as db:
            assert (await db.execute(text("SHOW lock_timeout"))).scalar_one() == "5s"
        assert database.DATABASE_URL.port == server.connection.port
        await _forget_engines()


@pytest.mark.usefixtures("data_folder")
async def test_the_embedded_server_is_for_developers_only(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deployment without DATABASE_HOST is told so, not sent to an embedded server."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    _set(monkeypatch, ENV="staging", DATABASE_PASSWORD="x")
    with pytest.raises(SettingsError, match=r"DATABASE_HOST.*ENV=staging"):
        await driver.transact(lambda session: session.execute(text("SELECT 1")))


async def test_damaged_facts_of_the_embedded_server_say_what_to_do(
    driver: Driver, damaged_data_folder: Path
) -> None:
    """A connection.json that cannot be read is a matter of settings, with a next step."""
    assert damaged_data_folder
    with pytest.raises(SettingsError, match=r"connection\.json is damaged\. Remove it"):
        await driver.transact(lambda session: session.execute(text("SELECT 1")))
