"""What tests do in processes of their own: many clients of the ledger at once, or one to kill.

A worker is told its database; it waits at a gate that the test opens once everybody is there.
"""

import asyncio
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

from src.common.credits.domain.commands import Command, Result
from src.common.credits.operations import execute
from src.common.database import dispose_db, get_engine, run_in_database_transaction
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.user import User
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.credits.engine.batching import all_at_once, running, told
from tests.fixtures.databases import environment_of
from tests.postgres.drivers import open_connection, until

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
        shares = [partial(_do_share, jobs=jobs[number::PROCESSES]) for number in range(PROCESSES)]
        outcomes: list[Outcome] = [[]] * len(jobs)
        for number, done in enumerate(self._at_once(database, shares)):
            outcomes[number::PROCESSES] = done
        return outcomes

    def do_beside_engines(
        self, database: ConnectionParameters, jobs: Sequence[Job], *engines: Sequence[Command]
    ) -> list[list[Outcome]]:
        """The jobs in one process, and in each other process its commands through a batch engine.

        The outcomes of the jobs first, then those of each engine.
        """
        shares = [partial(_do_share, jobs=jobs)]
        shares += [partial(_do_with_engine, commands=commands) for commands in engines]
        return self._at_once(database, shares)

    def _at_once(
        self, database: ConnectionParameters, shares: Sequence[Callable[..., list[Outcome]]]
    ) -> list[list[Outcome]]:
        """Let every process through the gate once all are there."""
        environment = environment_of(database)
        with open_connection(database) as connection:
            connection.execute("SELECT pg_advisory_lock(%s)", [GATE])
            doing = [self._pool.submit(share, environment) for share in shares]
            until(connection, _EVERYBODY_WAITS, len(shares))
            connection.execute("SELECT pg_advisory_unlock(%s)", [GATE])
            return [each.result() for each in doing]


@contextmanager
def crowd() -> Generator[Crowd]:
    """Processes that start once and then serve every test of a module."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        yield Crowd(pool)


def point_to(environment: Mapping[str, str]) -> None:
    """Make this process's settings name the test's database."""
    os.environ.update(environment)
    get_settings.cache_clear()


def _pass_the_gate() -> None:
    with get_engine().connect() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock_shared(:gate)"), {"gate": GATE})


def _do_share(environment: Mapping[str, str], jobs: Sequence[Job]) -> list[Outcome]:
    point_to(environment)
    _pass_the_gate()
    with ThreadPoolExecutor(THREADS) as threads:
        outcomes = list(threads.map(_do_one, jobs))
    dispose_db()
    return outcomes


def _do_one(job: Job) -> Outcome:
    try:
        return run_in_database_transaction(partial(job))
    except ExceptionWithErrorType as refused:
        return refused.error_type


def _do_with_engine(environment: Mapping[str, str], commands: Sequence[Command]) -> list[Outcome]:
    point_to(environment)
    _pass_the_gate()
    dispose_db()
    return asyncio.run(_ask_engine(commands))


async def _ask_engine(commands: Sequence[Command]) -> list[Outcome]:
    async with running() as engine:
        return [
            [outcome] if isinstance(outcome, Result) else told(outcome)
            for outcome in await all_at_once(engine, commands)
        ]
