"""Ledger tests that hold for both drivers are written once."""

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, TypeVar

import pytest
from sqlalchemy.orm import Session

from src.common.database_settings import LedgerTriggers
from tests.credits.books import InSession
from tests.credits.forging import Forger, forging
from tests.fixtures.databases import Server
from tests.postgres.drivers import DRIVERS, Driver

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

T = TypeVar("T")


@pytest.fixture(params=["psycopg", "asyncpg"])
def in_session(request: pytest.FixtureRequest) -> InSession:
    """A session of each driver in turn, inside one outer database transaction."""
    if request.param == "psycopg":
        db: Session = request.getfixturevalue("db")

        async def run_here(work: Callable[[Session], T]) -> T:
            return work(db)

        return run_here
    async_db: AsyncSession = request.getfixturevalue("async_db")

    async def run_in_greenlet(work: Callable[[Session], T]) -> T:
        return await async_db.run_sync(work)

    return run_in_greenlet


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.name)
def driver(request: pytest.FixtureRequest) -> Driver:
    """Each driver in turn, where commits are to be real."""
    assert isinstance(request.param, Driver)
    return request.param


@pytest.fixture(scope="session", params=LedgerTriggers)
def forger(request: pytest.FixtureRequest, server: Server) -> Generator[Forger]:
    """The service's own role, in a database with committed books that nobody else uses.

    What is tried there is refused or rolled back, by each form of the triggers in turn.
    """
    with forging(server, request.param) as forger:
        yield forger
