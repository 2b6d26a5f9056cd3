"""What tests do in processes of their own: many clients of the ledger at once, or one to kill.

A worker is told its database; it waits at a gate that the test opens once everybody is there.
"""

import multiprocessing
import os
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain

from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common.credits.commands import Command, Result
from src.common.credits.operations import execute
from src.common.database import dispose_db, get_engine, run_in_database_transaction
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.user import User
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.engines.drivers import open_connection, until
from tests.fixtures.databases import environment_of

PROCESSES = 3
THREADS = 4
GATE = 4_712
_EVERYBODY_WAITS = """
SELECT count(*) = %s FROM pg_locks JOIN pg_database ON pg_database.oid = database
WHERE locktype = 'advisory' AND objid = 4712 AND NOT granted AND datname = current_database()
"""


@dataclass(frozen=True)
class Steps:
    """One database transaction: the ledger called once for each of these lists."""

    calls: Sequence[Sequence[Command]]

    def __call__(self, session: Session) -> list[Result]:
        """The results of all calls."""
        return list(chain.from_iterable(execute(session, call) for call in self.calls))


@dataclass(frozen=True)
class At:
    """One command, at an instant the test chooses."""

    command: Command
    seconds: float

    def __call__(self, session: Session) -> list[Result]:
        """Its result."""
        instant = session.execute(
            text("SELECT now() + make_interval(secs => :seconds)"), {"seconds": self.seconds}
        ).scalar_one()
        return execute(session, [self.command], now=instant)


@dataclass(frozen=True)
class Assign:
    """The document's own way, without a lock: load, add, commit."""

    user_ids: Sequence[uuid.UUID]
    change: int

    def __call__(self, session: Session) -> list[Result]:
        """No results: the attribute is all there is."""
        users = [session.get_one(User, user_id) for user_id in self.user_ids]
        for user in users:
            user.credits_balance += self.change
        return []


Job = Callable[[Session], list[Result]]
Outcome = list[Result] | str


class Crowd:
    """Several processes with several threads each."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def do(self, database: ConnectionParameters, jobs: Sequence[Job]) -> list[Outcome]:
        """Every job in a database transaction of its own, as many at once as there are threads."""
        environment = environment_of(database)
        with open_connection(database) as connection:
            connection.execute("SELECT pg_advisory_lock(%s)", [GATE])
            shares = [
                self._pool.submit(_do_share, environment, jobs[number::PROCESSES])
                for number in range(PROCESSES)
            ]
            until(connection, _EVERYBODY_WAITS, PROCESSES)
            connection.execute("SELECT pg_advisory_unlock(%s)", [GATE])
            outcomes: list[Outcome] = [[]] * len(jobs)
            for number, share in enumerate(shares):
                outcomes[number::PROCESSES] = share.result()
        return outcomes


@contextmanager
def crowd() -> Generator[Crowd]:
    """Processes that start once and then serve every test of a module."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        yield Crowd(pool)


def point_to(environment: Mapping[str, str]) -> None:
    """Make this process's settings name the test's database."""
    os.environ.update(environment)
    get_settings.cache_clear()


def _do_share(environment: Mapping[str, str], jobs: Sequence[Job]) -> list[Outcome]:
    point_to(environment)
    with get_engine().connect() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock_shared(:gate)"), {"gate": GATE})
    with ThreadPoolExecutor(THREADS) as threads:
        outcomes = list(threads.map(_do_one, jobs))
    dispose_db()
    return outcomes


def _do_one(job: Job) -> Outcome:
    try:
        return run_in_database_transaction(partial(job))
    except ExceptionWithErrorType as refused:
        return refused.error_type
