"""What the engines ask of the pool, the driver and the server."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, QueuePool, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from src.common.database_settings import DatabasePooler
from src.common.postgres.engines import build_async_engine, build_engine
from src.common.postgres.errors import RetryableDatabaseError
from src.common.postgres.silent_servers import PatientConnection
from src.common.settings import Settings, load_settings
from src.local_postgres import ConnectionParameters
from tests.postgres.drivers import Driver, settings_for, show, terminate

TIMEOUTS = {
    "lock_timeout": "1234ms",
    "statement_timeout": "23456ms",
    "idle_in_transaction_session_timeout": "34567ms",
}
UNUSUAL = {
    "database_lock_timeout_ms": 1_234,
    "database_statement_timeout_ms": 23_456,
    "database_idle_in_transaction_session_timeout_ms": 34_567,
}
Build = Callable[[Settings], Engine]


def _build_async(settings: Settings) -> Engine:
    return build_async_engine(settings).sync_engine


BUILDS: dict[str, Build] = {"psycopg": build_engine, "asyncpg": _build_async}
BOTH = pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)


@BOTH
def test_the_pools_are_the_document_s(build: Build) -> None:
    """20 connections kept, 10 more in a rush."""
    assert _pool_of(build(load_settings())) == (20, 10)


def test_every_pool_value_is_a_setting() -> None:
    """Each engine takes its own values and the shared patience."""
    settings = load_settings(
        database_pool_size=2,
        database_max_overflow=3,
        database_async_pool_size=4,
        database_async_max_overflow=5,
        database_pool_timeout_seconds=0.5,
    )
    engine, async_engine = build_engine(settings), build_async_engine(settings).sync_engine
    assert (_pool_of(engine), _pool_of(async_engine)) == ((2, 3), (4, 5))
    for built in (engine, async_engine):
        assert isinstance(built.pool, QueuePool)
        assert built.pool.timeout() == 0.5


@pytest.mark.parametrize("pings", [True, False, None], ids=["ping", "no ping", "default"])
async def test_a_ping_replaces_a_connection_the_server_closed(
    driver: Driver, *, pings: bool | None, worker_database: ConnectionParameters
) -> None:
    """With pre-ping nobody notices; without, one caller does. The document's sync pool pings."""
    options: dict[str, object] = {"database_pool_size": 1, "database_async_pool_size": 1}
    if pings is not None:
        options |= dict.fromkeys(("database_pool_pre_ping", "database_async_pool_pre_ping"), pings)
    settings = settings_for(worker_database, **options)

    def backend(connection: Connection) -> int:
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())

    def end_it(connection: Connection) -> int:
        pid = backend(connection)
        connection.rollback()
        terminate(worker_database, pid)
        return pid

    replaced = driver.name == "psycopg" if pings is None else pings
    if replaced:
        first, second = await driver.run(settings, end_it, backend)
        assert first != second
    else:
        with pytest.raises(RetryableDatabaseError):
            await driver.run(settings, end_it, backend)


@BOTH
@pytest.mark.parametrize("pooler", [DatabasePooler.TRANSACTION, DatabasePooler.PREPARED])
def test_a_pooler_sees_no_start_up_option_it_refuses(build: Build, pooler: DatabasePooler) -> None:
    """PgBouncer passes application_name and refuses the rest, so nothing else is sent."""
    arguments = _connect_arguments(build, database_pooler=pooler, **UNUSUAL)
    server_settings = arguments.pop("server_settings", {"application_name": "flashslides"})
    assert server_settings == {"application_name": "flashslides"}
    assert "options" not in arguments
    assert not [name for name in arguments if name in TIMEOUTS]


@pytest.mark.parametrize("pooler", [DatabasePooler.NONE, DatabasePooler.TRANSACTION])
async def test_no_plan_is_compiled(
    driver: Driver, pooler: DatabasePooler, worker_database: ConnectionParameters
) -> None:
    """Before PostgreSQL 18 a plan that looks dear is; a write would wait for it each time."""
    settings = settings_for(worker_database, database_pooler=pooler)
    assert await driver.run(settings, lambda connection: show(connection, "jit")) == [
        {"jit": "off"}
    ]


@pytest.mark.parametrize("pooler", list(DatabasePooler))
async def test_prepared_statements_are_kept_where_the_pooler_keeps_them(
    driver: Driver, pooler: DatabasePooler, worker_database: ConnectionParameters
) -> None:
    """Only the mode `transaction`, for a pooler that loses them, makes none at the server."""

    def count_after_some_use(connection: Connection) -> int:
        for number in range(10):
            connection.execute(text("SELECT :number + 1"), {"number": number})
        counted = connection.execute(
            text("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''")
        )
        return int(counted.scalar_one())

    settings = settings_for(worker_database, database_pooler=pooler)
    [count] = await driver.run(settings, count_after_some_use)
    assert (count > 0) is (pooler is not DatabasePooler.TRANSACTION)


def test_the_document_s_async_setting_is_what_transaction_means() -> None:
    """`statement_cache_size: 0` and its likes for the other caches, and in no other mode."""
    names = ("statement_cache_size", "prepared_statement_cache_size", "prepare_threshold")
    found = {
        pooler: {
            name: arguments[name]
            for build in BUILDS.values()
            for arguments in [_connect_arguments(build, database_pooler=pooler)]
            for name in names
            if name in arguments
        }
        for pooler in DatabasePooler
    }
    assert found == {
        DatabasePooler.NONE: {},
        DatabasePooler.PREPARED: {},
        DatabasePooler.TRANSACTION: {
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepare_threshold": None,
        },
    }


@pytest.mark.parametrize("pooler", list(DatabasePooler))
async def test_the_time_outs_hold_in_every_database_transaction(
    driver: Driver, pooler: DatabasePooler, worker_database: ConnectionParameters
) -> None:
    """In the first, after COMMIT, after ROLLBACK, in a savepoint, and after autocommitted work."""

    def transactions(connection: Connection) -> list[dict[str, str]]:
        seen = [show(connection, *TIMEOUTS)]
        connection.commit()
        seen.append(show(connection, *TIMEOUTS))
        connection.rollback()
        with connection.begin():
            connection.begin_nested().rollback()
            seen.append(show(connection, *TIMEOUTS))
        return seen

    def autocommit(connection: Connection) -> list[dict[str, str]]:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text("SELECT 1"))
        return []

    settings = settings_for(
        worker_database,
        database_pooler=pooler,
        database_pool_size=1,
        database_async_pool_size=1,
        **UNUSUAL,
    )
    before, _, after = await driver.run(settings, transactions, autocommit, transactions)
    assert before + after == [TIMEOUTS] * 6


@pytest.mark.parametrize("pooler", list(DatabasePooler))
async def test_no_time_out_stays_behind_for_a_pooler_s_next_client(
    driver: Driver, pooler: DatabasePooler, worker_database: ConnectionParameters
) -> None:
    """Outside a database transaction a pooled session is as the server made it."""

    def in_autocommit(connection: Connection) -> dict[str, str]:
        connection.execute(text("SELECT 1"))
        connection.commit()
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        return show(connection, *TIMEOUTS)

    settings = settings_for(worker_database, database_pooler=pooler, **UNUSUAL)
    [seen] = await driver.run(settings, in_autocommit)
    assert seen == (TIMEOUTS if pooler is DatabasePooler.NONE else dict.fromkeys(TIMEOUTS, "0"))


@pytest.mark.parametrize("pooler", list(DatabasePooler))
async def test_the_server_knows_who_we_are(
    driver: Driver, pooler: DatabasePooler, worker_database: ConnectionParameters
) -> None:
    """An operator finds our connections in pg_stat_activity by their application_name."""

    def own_row(connection: Connection) -> str:
        query = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        return str(connection.execute(text(query)).scalar_one())

    settings = settings_for(
        worker_database, database_pooler=pooler, database_application_name="flash worker 7"
    )
    assert await driver.run(settings, own_row) == ["flash worker 7"]


async def test_a_full_pool_is_sqlalchemy_s_own_time_out(
    driver: Driver, worker_database: ConnectionParameters
) -> None:
    """Who finds no free connection in time gets sqlalchemy.exc.TimeoutError on both drivers."""

    def take_another(connection: Connection) -> None:
        connection.engine.connect().close()

    settings = settings_for(
        worker_database,
        database_pool_size=1,
        database_max_overflow=0,
        database_async_pool_size=1,
        database_async_max_overflow=0,
        database_pool_timeout_seconds=0.01,
    )
    with pytest.raises(PoolTimeoutError):
        await driver.run(settings, take_another)


def _pool_of(engine: Engine) -> tuple[int, int]:
    assert isinstance(engine.pool, QueuePool)
    return engine.pool.size(), vars(engine.pool)["_max_overflow"]


def _connect_arguments(build: Build, **settings: object) -> dict[str, Any]:
    """What the driver would be given, without a connection being made."""
    seen: dict[str, Any] = {}

    def refuse(**parameters: object) -> None:
        seen.update(parameters)
        raise InterruptedError

    engine = build(load_settings(database_host="nowhere.invalid", **settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.dialect, "connect", refuse)
        patch.setattr(PatientConnection, "connect", refuse)
        with pytest.raises((InterruptedError, RetryableDatabaseError)):
            engine.connect()
    return seen
