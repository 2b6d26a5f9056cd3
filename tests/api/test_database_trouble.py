"""Passing conditions of the database: 503 DATABASE_BUSY with Retry-After, never 400 or 500."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from src.api.src import scrapes
from src.api.src.routes import health
from src.common.async_database import dispose_async_db, get_async_db, get_async_engine
from src.common.models.user import User
from src.common.postgres.migrations import alembic_config
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters, free_port
from tests.api.tokens import make_token
from tests.fixtures.api import Api, StartApi, error_type_of, make_api_key, make_user, until
from tests.fixtures.databases import Server
from tests.postgres.drivers import read_only
from tests.postgres.test_silent_servers import wire_to
from tests.stripe.payments import make_event, make_session


def assert_busy(answer: httpx.Response) -> None:
    """The one answer to a passing condition."""
    assert (answer.status_code, error_type_of(answer)) == (503, "DATABASE_BUSY")
    assert int(answer.headers["Retry-After"]) >= 1


async def every_route(api: Api, user: User) -> dict[str, httpx.Response]:
    """The answer of each route that needs the database."""
    token = make_token(user.user_id, email=user.email)
    event = make_event(make_session(user))
    return {
        "user": await api.get(f"/user/{user.user_id}", token),
        "transactions": await api.get(f"/user/{user.user_id}/transactions", token),
        "by key": await api.get(f"/user/{user.user_id}", "fsk_x"),
        "sign-in": await api.call("POST", "/authenticate-jwt", token),
        "profile": await api.call("PATCH", "/update_profile", token, json={}),
        "webhook": await api.deliver(event),
        "readyz": await api.client.get("/readyz"),
    }


@asynccontextmanager
async def locked(statement: str) -> AsyncGenerator[AsyncSession]:
    """Hold the locks of a statement for the block."""
    async with get_async_db() as session, session.begin():
        await session.execute(text(statement))
        yield session


async def metric(api: Api, name: str) -> float:
    """The value of a metric without labels."""
    answer = await api.client.get("/metrics")
    assert answer.status_code == 200
    (line,) = [line for line in answer.text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


@pytest.mark.parametrize("pool_timeout", ["0.2", "60"])
async def test_an_exhausted_pool_is_busy(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch, pool_timeout: str
) -> None:
    """With the one connection held elsewhere every route gives up in time, and metrics answer."""
    api = await start_api(
        DATABASE_ASYNC_POOL_SIZE="1",
        DATABASE_ASYNC_MAX_OVERFLOW="0",
        DATABASE_POOL_TIMEOUT_SECONDS=pool_timeout,
    )
    user = await make_user()
    assert await metric(api, "flashslides_database_up") == 1
    async with get_async_engine().connect():
        monkeypatch.setattr(scrapes, "MEASURING_TIMEOUT_SECONDS", 0.5)
        assert await metric(api, "flashslides_database_up") == 0
        with monkeypatch.context() as soon:
            soon.setattr(health, "READINESS_TIMEOUT_SECONDS", 0.5)
            answers = (
                await every_route(api, user)
                if pool_timeout == "0.2"
                else {"readyz": await api.client.get("/readyz")}
            )
        assert (
            'pool_connections{pool="async",state="in_use"} 1.0'
            in (await api.client.get("/metrics")).text
        )
    for answer in answers.values():
        assert_busy(answer)
    assert (await api.client.get("/readyz")).status_code == 200


async def test_a_locked_row_is_busy_for_writers_only(start_api: StartApi) -> None:
    """Past lock_timeout a writer of the row is answered DATABASE_BUSY; readers never wait."""
    api = await start_api(DATABASE_LOCK_TIMEOUT_MS="100")
    user = await make_user()
    async with locked("SELECT 1 FROM users FOR UPDATE"):
        answers = await every_route(api, user)
    for name in ("sign-in", "profile"):
        assert_busy(answers[name])
    assert answers["webhook"].json() == {"status": "accepted"}  # stored; the worker tries again
    for name in ("user", "transactions", "readyz"):
        assert answers[name].status_code == 200, name


async def test_a_statement_that_takes_too_long_is_busy(start_api: StartApi) -> None:
    """Past statement_timeout even a reader gets 503: here the whole table is locked."""
    api = await start_api(DATABASE_LOCK_TIMEOUT_MS="0", DATABASE_STATEMENT_TIMEOUT_MS="200")
    user = await make_user()
    token = make_token(user.user_id)
    async with locked("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"):
        assert_busy(await api.get(f"/user/{user.user_id}", token))
    assert (await api.get(f"/user/{user.user_id}", token)).status_code == 200


async def test_a_database_that_is_gone_is_busy(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens: every route says 503, liveness and metrics answer."""
    api = await start_api()
    user = await make_user()
    await dispose_async_db()
    monkeypatch.setenv("DATABASE_PORT", str(free_port()))
    get_settings.cache_clear()
    for name, answer in (await every_route(api, user)).items():
        assert answer.status_code == 503, name
        assert_busy(answer)
    assert (await api.client.get("/livez")).status_code == 200
    assert await metric(api, "flashslides_database_up") == 0


async def test_without_any_database_the_answer_says_what_to_set(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A wrong configuration is 500 SETTINGS_INVALID: trying again will not help."""
    api = await start_api()
    await dispose_async_db()
    monkeypatch.delenv("DATABASE_HOST")
    monkeypatch.setenv("FLASHSLIDES_DATA_DIR", str(tmp_path_factory.mktemp("nothing")))
    get_settings.cache_clear()
    answer = await api.client.get("/readyz")
    assert (answer.status_code, error_type_of(answer)) == (500, "SETTINGS_INVALID")
    assert await metric(api, "flashslides_database_up") == 0


async def test_connections_that_died_in_the_pool_are_busy_once(
    start_api: StartApi, server: Server, fresh_database: ConnectionParameters
) -> None:
    """After the server closed them the first request may fail, as 503, and the next one works."""
    api = await start_api(DATABASE_ASYNC_POOL_SIZE="1", DATABASE_ASYNC_MAX_OVERFLOW="0")
    user = await make_user()
    token = make_token(user.user_id)
    with server.admin() as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [fresh_database.database],
        )
    answer = await api.get(f"/user/{user.user_id}", token)
    if answer.status_code != 200:
        assert_busy(answer)
    assert (await api.get(f"/user/{user.user_id}", token)).status_code == 200


async def test_a_process_that_starts_before_its_database_waits_for_it(
    start_api: StartApi, fresh_database: ConnectionParameters
) -> None:
    """It is alive and not ready; with the database it is ready, and serves."""
    user = await make_user()
    port = free_port()
    api = await start_api(DATABASE_PORT=str(port))
    for answer in (await every_route(api, user)).values():
        assert_busy(answer)
    assert (await api.client.get("/livez")).status_code == 200
    with wire_to(fresh_database, port):

        async def is_ready() -> bool:
            return (await api.client.get("/readyz")).status_code == 200

        await until(is_ready)
        answers = await every_route(api, user)
        del answers["by key"]  # of nobody
        assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(
            answers, 200
        )
        await dispose_async_db()


async def test_wrong_settings_end_it_all_the_same(start_api: StartApi) -> None:
    """A password that the server refuses is nothing to wait for."""
    with pytest.raises(OperationalError):
        await start_api(DATABASE_PASSWORD="wrong")


async def test_a_server_that_only_reads_serves_readers(
    start_api: StartApi, fresh_database: ConnectionParameters
) -> None:
    """Who writes is told to try later; `/readyz` says why."""
    api = await start_api()
    user, key = await make_user(), await make_api_key("credits:grant", "credits:read")
    address = f"/user/{user.user_id}/credits"
    with read_only(fresh_database):
        await dispose_async_db()
        answers = await every_route(api, user)
        reads = {name: answers.pop(name).status_code for name in ("user", "transactions")}
        del answers["by key"]
        answers["grant"] = await api.call(
            "POST",
            f"{address}/grant",
            key,
            json={"amount": 1, "source": "promo"},
            headers={"Idempotency-Key": "k"},
        )
        reads["balance"] = (await api.get(address, key)).status_code
        reads["entries"] = (await api.get(f"{address}/entries", key)).status_code
    assert set(reads.values()) == {200}, reads
    for answer in answers.values():
        assert_busy(answer)
    assert "server read-only" in answers["readyz"].json()["detail"]["message"]


async def test_a_server_that_only_reads_is_not_ready(
    start_api: StartApi, fresh_database: ConnectionParameters
) -> None:
    """As after a failover. Once another takes writes, its connections take the old ones' place."""
    api = await start_api()
    with read_only(fresh_database):
        await dispose_async_db()
        assert_busy(await api.client.get("/readyz"))
    assert (await api.client.get("/readyz")).status_code == 200


async def test_a_schema_that_is_behind_is_not_ready(start_api: StartApi) -> None:
    """`/readyz` says which revision it found; `/metrics` answers all the same."""
    api = await start_api()
    older = str(ScriptDirectory.from_config(alembic_config()).get_base())
    assert (await api.client.get("/readyz")).json()["status"] == "ready"
    async with get_async_db() as session, session.begin():
        await session.execute(
            text("UPDATE alembic_version SET version_num = :older"), {"older": older}
        )
        await session.execute(text("DROP TABLE unmatched_payments"))
    answer = await api.client.get("/readyz")
    assert (answer.status_code, error_type_of(answer)) == (503, "NOT_READY")
    assert older in answer.json()["detail"]["message"]
    assert "Retry-After" in answer.headers
    assert (await api.client.get("/metrics")).status_code == 200
    async with get_async_db() as session, session.begin():
        await session.execute(text("DROP TABLE alembic_version"))
    answer = await api.client.get("/readyz")
    assert (answer.status_code, error_type_of(answer)) == (503, "NOT_READY")


async def test_a_schema_that_is_ahead_is_ready(start_api: StartApi) -> None:
    """A newer release migrated first: this one serves until it is replaced."""
    api = await start_api()
    async with get_async_db() as session, session.begin():
        await session.execute(text("UPDATE alembic_version SET version_num = 'newer'"))
    answer = await api.client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "revision": "newer"})


async def test_a_deadlock_in_a_route_is_tried_again(
    start_api: StartApi, fresh_database: ConnectionParameters
) -> None:
    """The route is the deadlock's victim and runs again: Stripe never hears of it.

    The test locks the user, the route locks its event and waits for the user, the test then wants
    the event: a circle. The route looks for one first, so that PostgreSQL cancels the route. That
    the test gets its lock shows that it did, and `attempts` that it ran again by itself.
    """
    api = await start_api()
    user = await make_user()
    async with get_async_db() as session, session.begin():
        database = fresh_database.database
        await session.execute(text(f'ALTER DATABASE "{database}" SET deadlock_timeout = 300'))
    await dispose_async_db()  # new connections have the new setting
    event = make_event(make_session(user), type="ping")
    await api.deliver(event)
    paid = {**event, "id": "evt_paid", "type": "checkout.session.completed"}
    async with locked("SELECT 1 FROM users FOR UPDATE") as session:
        await session.execute(text("SET LOCAL deadlock_timeout = '60s'"))
        await session.execute(text("SET LOCAL lock_timeout = 0"))
        delivery = asyncio.create_task(api.deliver(paid))
        await until(waits_for_a_lock)
        await session.execute(text("SELECT 1 FROM stripe_events FOR UPDATE"))
    answer = await delivery
    assert (answer.status_code, answer.json()) == (200, {"status": "processed"})
    async with get_async_db() as session:
        attempts = text("SELECT attempts FROM stripe_events WHERE event_id = 'evt_paid'")
        assert (await session.scalars(attempts)).one() == 1


async def waits_for_a_lock() -> bool:
    """Whether some session of this database waits for a lock."""
    async with get_async_db() as session:
        waiting = text(
            "SELECT EXISTS (SELECT FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock')"
        )
        return bool((await session.scalars(waiting)).one())
