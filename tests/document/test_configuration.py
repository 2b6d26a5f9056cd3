"""Chapter "Database Configuration": URL, variables, pools; and that no password ever shows."""

from collections.abc import Generator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from src.common import async_database, database
from src.common.postgres.engines import build_engine, database_url
from src.common.settings import Settings, get_settings, load_settings
from src.local_postgres import ConnectionParameters
from tests.document.document import blocks, run
from tests.fixtures.databases import Server

AWKWARD_PASSWORD = "p@ss/w:rd%20#1?&=+ ü"
PREPARED = "SELECT count(*) FROM pg_prepared_statements"  # itself among them, where kept


@pytest.fixture
def impatient(fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools that give up at once when no connection is free."""
    assert fresh_database
    monkeypatch.setenv("DATABASE_POOL_TIMEOUT_SECONDS", "0.001")
    get_settings.cache_clear()


@pytest.fixture
def awkward_user(
    server: Server, fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> Generator[None]:
    """The settings name a database user whose password no URL holds unescaped."""
    name = f"awkward_{fresh_database.database}"
    with server.admin() as connection:
        statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
        connection.execute(statement.format(sql.Identifier(name), AWKWARD_PASSWORD))
    monkeypatch.setenv("DATABASE_USER", name)
    monkeypatch.setenv("DATABASE_PASSWORD", AWKWARD_PASSWORD)
    get_settings.cache_clear()
    yield
    server.execute("DROP ROLE {}", name)


def test_the_document_s_variables_are_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document's block, comments and all, is a `.env` file that is understood in full."""
    [variables] = [block for block in blocks("bash") if "DATABASE_HOST=" in block]
    (tmp_path / ".env").write_text(variables, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")  # as outside the tests
    for line in variables.splitlines():
        monkeypatch.delenv(line.partition("=")[0], raising=False)
    settings = load_settings()
    given = database_url(settings)
    assert given == make_url("postgresql+psycopg://postgres:postgres@postgres:5432/flashslides")


def test_the_document_s_url_is_ours(worker_database: ConnectionParameters) -> None:
    """Where the password needs no escaping, the document's f-string names the same database."""
    names = run(
        "the URL",
        DATABASE_USER=worker_database.user,
        DATABASE_PASSWORD=worker_database.password,
        DATABASE_HOST=worker_database.host,
        DATABASE_PORT=worker_database.port,
        DATABASE_NAME=worker_database.database,
    )
    theirs = make_url(names["DATABASE_URL"])
    assert database.DATABASE_URL.set(drivername=theirs.drivername) == theirs
    assert async_database.DATABASE_URL_ASYNC.set(drivername=theirs.drivername) == theirs
    assert async_database.DATABASE_URL_ASYNC.drivername == "postgresql+asyncpg"


def test_the_document_s_own_sync_pool_works(worker_database: ConnectionParameters) -> None:
    """`create_engine` as written in the document connects with our URL."""
    assert worker_database
    engine = run("the sync pool", DATABASE_URL=database.DATABASE_URL)["engine"]
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT current_database()")) == worker_database.database
    engine.dispose()


async def test_the_document_s_own_async_pool_works(worker_database: ConnectionParameters) -> None:
    """`create_async_engine` as written in the document connects with our URL."""
    url = async_database.DATABASE_URL_ASYNC
    engine = run("the async pool", DATABASE_URL_ASYNC=url)["async_engine"]
    async with engine.connect() as connection:
        found = await connection.scalar(text("SELECT current_database()"))
    await engine.dispose()
    assert found == worker_database.database


@pytest.mark.usefixtures("impatient")
def test_the_sync_pool_is_20_and_10() -> None:
    """Thirty connections are given out, the next one is refused with the document's symptom."""
    with ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(database.engine.connect())
        with pytest.raises(PoolTimeoutError, match="QueuePool limit of size 20 overflow 10"):
            database.engine.connect()


@pytest.mark.usefixtures("impatient")
async def test_the_async_pool_is_20_and_10() -> None:
    """As the sync pool."""
    async with AsyncExitStack() as stack:
        for _ in range(30):
            await stack.enter_async_context(async_database.async_engine.connect())
        with pytest.raises(PoolTimeoutError, match="QueuePool limit of size 20 overflow 10"):
            await async_database.async_engine.connect()


@pytest.mark.usefixtures("fresh_database")
def test_the_sync_pool_verifies_connections_before_using_them(server: Server) -> None:
    """A pooled connection that died in the meantime is replaced, unnoticed by whoever asks."""
    with database.engine.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
    with server.admin() as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    with database.engine.connect() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) != pid


@pytest.mark.usefixtures("fresh_database")
@pytest.mark.parametrize(("pooler", "keeps"), [("transaction", False), ("none", True)])
async def test_a_transaction_pooler_turns_the_statement_caches_off(
    pooler: str, *, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With DATABASE_POOLER=transaction nothing stays prepared on the server, on either driver."""
    monkeypatch.setenv("DATABASE_POOLER", pooler)
    get_settings.cache_clear()
    async with async_database.async_engine.connect() as connection:
        kept_async = [await connection.scalar(text(PREPARED)) for _ in range(8)]
    with database.engine.connect() as connection:
        kept_sync = [connection.scalar(text(PREPARED)) for _ in range(8)]
    assert (any(kept_async), any(kept_sync)) == (keeps, keeps)


@pytest.mark.usefixtures("worker_database")
def test_names_imported_before_initialisation_work_after_it() -> None:
    """`engine`, `DATABASE_URL` and `SessionLocal` need no init_db, and survive it."""
    from src.common.database import DATABASE_URL, SessionLocal, engine, init_db

    init_db()
    with engine.connect() as connection, SessionLocal() as db:
        assert connection.scalar(text("SELECT 1")) == db.scalar(text("SELECT 1"))
    assert engine.url == DATABASE_URL
    assert engine is database.engine


@pytest.mark.usefixtures("async_worker_database")
async def test_async_names_imported_before_initialisation_work_after_it() -> None:
    """`async_engine` and `DATABASE_URL_ASYNC` need no init_async_db, and survive it."""
    from src.common.async_database import DATABASE_URL_ASYNC, async_engine, init_async_db

    await init_async_db()
    async with async_engine.connect() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
    assert async_engine.url == DATABASE_URL_ASYNC
    assert async_engine is async_database.async_engine


@pytest.mark.usefixtures("awkward_user")
async def test_any_password_works_as_it_is() -> None:
    """A password of `@ / : % #` needs no escaping: it is never part of a string that is parsed."""
    settings = get_settings()
    assert settings.database_password is not None
    assert settings.database_password.get_secret_value() == AWKWARD_PASSWORD
    database.init_db()
    await async_database.init_async_db()
    assert database.DATABASE_URL.password == AWKWARD_PASSWORD


def test_no_password_shows() -> None:
    """Settings, URLs and engines mask the password however they are printed."""
    secret = "hunter2-is-secret"
    settings = load_settings(database_host="db", database_password=secret)
    engine = build_engine(settings)
    url = database_url(settings)
    shown: tuple[Any, ...] = (settings, url, engine, engine.url, settings.database_password)
    assert secret == url.password
    assert [item for item in shown if secret in f"{item!r} {item!s}"] == []
    assert secret not in str(settings.model_dump())
