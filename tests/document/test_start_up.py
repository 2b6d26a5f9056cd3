"""Chapter "Database Initialization": the start-up functions, `create_all` and what it leaves."""

import re
import subprocess

import pytest
from alembic import command
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from src.common import async_database, database
from src.common.async_database import dispose_async_db, init_async_db
from src.common.database import Base, init_db
from src.common.exceptions import DatabaseBusy
from src.common.postgres.migrations import alembic_config, current_revision, head_revision
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.document.document import run
from tests.fixtures.databases import Server


def schema_of(server: Server, connection: ConnectionParameters) -> list[str]:
    """The schema as pg_dump writes it, statement by statement; columns in any order."""
    command_line = [str(server.bin_dir / "pg_dump"), "--schema-only", "--no-owner"]
    environment = {
        "PGHOST": connection.host,
        "PGPORT": str(connection.port),
        "PGUSER": connection.user,
        "PGPASSWORD": connection.password,
        "PGDATABASE": connection.database,
    }
    dump = subprocess.run(
        [*command_line, "--exclude-table=alembic_version"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    lines = [line for line in dump.splitlines() if not re.match(r"--|\\(un)?restrict", line)]
    statements = [part.strip() for part in "\n".join(lines).split(";\n")]
    return [
        "\n".join(sorted(line.rstrip(",") for line in statement.splitlines()))
        if statement.startswith("CREATE TABLE")
        else statement
        for statement in statements
    ]


def test_create_all_and_stamp_give_what_the_migrations_give(
    server: Server, empty_database: ConnectionParameters, worker_database: ConnectionParameters
) -> None:
    """The document's block and `alembic stamp head` leave the schema of `upgrade head`."""
    run("create_all")
    command.stamp(alembic_config(), "head")
    assert schema_of(server, empty_database) == schema_of(server, worker_database)
    with database.engine.connect() as connection:
        assert current_revision(connection) == head_revision()


@pytest.mark.usefixtures("empty_database")
def test_create_all_after_drop_all_leaves_the_same() -> None:
    """The triggers too, whose functions outlive their tables."""
    triggers = "SELECT array_agg(tgname ORDER BY tgname) FROM pg_trigger WHERE NOT tgisinternal"
    found = []
    for _ in range(2):
        run("create_all")
        with database.engine.begin() as connection:
            found.append(connection.execute(text(triggers)).scalar_one())
            Base.metadata.drop_all(connection)
    assert "users_kept" in found[0]
    assert found[0] == found[1]


@pytest.mark.usefixtures("fresh_database")
def test_the_document_s_start_up_runs() -> None:
    """`@app.on_event("startup")` with both functions starts an application."""
    app = FastAPI()
    with pytest.warns(DeprecationWarning, match="on_event"):
        run("start-up", app=app)
    app.router.add_event_handler("shutdown", dispose_async_db)
    with TestClient(app) as client:
        assert client.get("/").status_code == 404
        assert database.engine.pool.checkedin() == 1  # type: ignore[attr-defined]


@pytest.mark.usefixtures("fresh_database")
async def test_initialising_twice_changes_nothing() -> None:
    """Both functions may be called again; the engines stay the same objects."""
    engines = database.engine, async_database.async_engine
    for _ in range(2):
        init_db()
        await init_async_db()
    assert (database.engine, async_database.async_engine) == engines


@pytest.mark.usefixtures("fresh_database")
async def test_a_server_that_can_not_be_reached_is_said_at_start_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where nobody listens, both functions raise DATABASE_BUSY instead of a driver's error."""
    monkeypatch.setenv("DATABASE_PORT", "1")
    get_settings.cache_clear()
    with pytest.raises(DatabaseBusy, match="server not reachable"):
        init_db()
    with pytest.raises(DatabaseBusy, match="server not reachable"):
        await init_async_db()
