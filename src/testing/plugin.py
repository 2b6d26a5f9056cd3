"""Pytest fixtures for applications that use this library.

In the topmost `conftest.py`:

    pytest_plugins = ["src.testing.plugin"]

Each test that asks for one of them has a database of its own, which is dropped after it. Commits
are real. Tests may run in several processes (pytest-xdist): they share one server.
"""

import functools
import inspect
import shutil
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from src.common.async_database import AsyncSessionLocal, dispose_async_db
from src.common.database import SessionLocal
from src.local_postgres import LocalPostgresError, status
from src.testing.clock import FrozenClock
from src.testing.databases import Database, Server, server

_RUN = pytest.StashKey[str]()
_CLOSINGS = pytest.StashKey[list[Callable[[], Awaitable[object]]]]()


def pytest_configure(config: pytest.Config) -> None:
    """Give the run a name, which its processes share: there is one server a run."""
    worker: dict[str, str] = getattr(config, "workerinput", {})
    run = worker.get("testrunuid") or config.getoption("testrunuid", None) or uuid.uuid4().hex
    if hasattr(config.option, "testrunuid"):
        config.option.testrunuid = run  # pytest-xdist hands it to its workers
    config.stash[_RUN] = str(run)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the server's folder once every process has left it."""
    folder = _folder(session.config)
    if not hasattr(session.config, "workerinput") and folder.exists() and not _is_in_use(folder):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def flashslides_server(pytestconfig: pytest.Config) -> Iterator[Server]:
    """The run's embedded PostgreSQL, and in it a template that the migrations have built."""
    with server(_folder(pytestconfig)) as running:
        yield running


@pytest.fixture
def flashslides_database(
    flashslides_server: Server, request: pytest.FixtureRequest
) -> Iterator[Database]:
    """A migrated database of this test's own.

    `SessionLocal`, `get_db`, `get_async_db`, the API and the commands lead to it.
    """
    with flashslides_server.database() as database:
        _close_in_its_loop(request.node, dispose_async_db)
        yield database


@pytest.fixture
def flashslides_session(flashslides_database: Database) -> Iterator[Session]:
    """A session on the test's database. What it does not commit is rolled back."""
    assert flashslides_database  # noqa: S101  the settings lead to it
    with SessionLocal() as session:
        yield session


@pytest.fixture
def flashslides_async_session(
    flashslides_database: Database, request: pytest.FixtureRequest
) -> AsyncSession:
    """The same for an async test, whichever plugin runs it."""
    assert flashslides_database  # noqa: S101  the settings lead to it
    session = AsyncSessionLocal()
    _close_in_its_loop(request.node, session.close)
    return session


@pytest.fixture
def flashslides_clock(flashslides_database: Database) -> FrozenClock:
    """The clock of the test's database, which stands still from now on."""
    return FrozenClock(flashslides_database.connect)


def _close_in_its_loop(item: Any, close: Callable[[], Awaitable[object]]) -> None:
    """Have an async test close something at its end, while its event loop still runs.

    Connections belong to a loop, and which plugin gives the test one is not ours to know. What
    came last is closed first.
    """
    closings: list[Callable[[], Awaitable[object]]] = item.stash.setdefault(_CLOSINGS, [])
    closings.append(close)
    test: Any = item.obj
    if len(closings) > 1 or not inspect.iscoroutinefunction(test):
        return

    @functools.wraps(test)
    async def closing(*args: Any, **kwargs: Any) -> Any:
        try:
            return await test(*args, **kwargs)
        finally:
            while closings:
                await closings.pop()()

    item.obj = closing


def _folder(config: pytest.Config) -> Path:
    return Path(tempfile.gettempdir()) / f"flashslides-testing-{config.stash[_RUN][:12]}"


def _is_in_use(folder: Path) -> bool:
    try:
        return status(folder).running
    except LocalPostgresError:  # a run that was stopped while it made the server
        return False
