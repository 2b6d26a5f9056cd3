"""Our side of a run: the schema, users with credits, the API's process and the load's."""

import asyncio
import os
import sys
import uuid
from pathlib import Path

import httpx
from sqlalchemy.orm import Session

from benchmarks.books import verify_everybody
from benchmarks.contestants.http import deployment
from benchmarks.failover.comparison import SEEDED
from benchmarks.failover.operations import Asked, read_record
from benchmarks.failover.processes import HarnessFailed, Process, until
from benchmarks.failover.programs import ROOT
from benchmarks.failover.ways import API_KEY, API_URL
from src.cli.work import settle_events
from src.common.accounts import api_keys
from src.common.credits import ledger
from src.common.database import dispose_db, run_in_database_transaction
from src.common.models.user import User
from src.common.postgres.migrations import upgrade_to_head
from src.common.settings import get_settings
from src.common.stripe.attempts import backlog
from src.local_postgres import free_port

USERS = 60
CREDITS = 50_000_000
SETTLING_SECONDS = 300.0
"""A guard against hanging: an attempt that was cut off is tried again after a minute."""
PATIENCE = {
    "DATABASE_CONNECT_TIMEOUT_SECONDS": "2",
    "DATABASE_POOL_TIMEOUT_SECONDS": "5",
    "DATABASE_LOCK_TIMEOUT_MS": "3000",
    "DATABASE_STATEMENT_TIMEOUT_MS": "5000",
}
"""Whoever wants a short gap gives a silent server up soon; docs/how-to/survive-a-failover.md."""


class Service:
    """The application before one database, and who asks it."""

    def __init__(self, folder: Path, application: dict[str, str], library: dict[str, str]) -> None:
        """How the application reaches the database, and how whoever uses the library does."""
        self._folder = folder
        common = {name: value for name, value in os.environ.items() if name[:9] != "DATABASE_"}
        common |= deployment() | PATIENCE | {"LOG_LEVEL": "WARNING"}
        self._application = common | application
        self.library = common | library
        self._port = free_port()
        self.user_ids: list[str] = []
        self._runs = 0
        os.environ.clear()
        os.environ.update(self.library)
        get_settings.cache_clear()

    def prepare(self) -> None:
        """Migrate, and make the users and the key of whoever asks over HTTP."""
        upgrade_to_head()
        self.user_ids, api_key = run_in_database_transaction(_make_users)
        dispose_db()
        asks = {API_KEY: api_key, API_URL: f"http://127.0.0.1:{self._port}"}
        self.library |= asks

    def start_api(self) -> Process:
        """Start the API, until it is ready."""
        command: list[str | Path] = [
            *(sys.executable, "-m", "uvicorn", "src.api.src.main:app", f"--port={self._port}"),
            *("--loop=uvloop", "--http=httptools", "--no-access-log", "--log-level=warning"),
        ]
        environment = self._application | {"PYTHONPATH": str(ROOT)}
        api = Process("api", command, self._folder, environment=environment)
        until(lambda: self._is_ready() or api.has_ended, "the API")
        if api.has_ended:
            raise HarnessFailed(f"The API did not start: {api.tail()}")
        return api

    def start_load(self) -> "RunningLoad":
        """Start asking."""
        self._runs += 1
        record = self._folder / f"record-{self._runs}.jsonl"
        record.touch()
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "benchmarks.failover.load",
            record,
            *self.user_ids,
        ]
        environment = self.library | {"PYTHONPATH": str(ROOT)}
        name = f"load-{self._runs}"
        return RunningLoad(Process(name, command, self._folder, environment=environment), record)

    @staticmethod
    def settle_accepted() -> None:
        """Settle, as the worker does, the events that were stored while the database was busy.

        Raises:
            HarnessFailed: some cannot be settled.
        """
        until(_is_settled, "accepted events to be settled", SETTLING_SECONDS)

    @staticmethod
    def verify() -> None:
        """Have the ledger check every user's books.

        Raises:
            BooksDisagree: they do not add up.
        """
        verify_everybody()

    def _is_ready(self) -> bool:
        try:
            answer = httpx.get(f"http://127.0.0.1:{self._port}/readyz", timeout=5)
        except httpx.TransportError:
            return False
        return answer.is_success


class RunningLoad:
    """A load under way, as its record shows it."""

    def __init__(self, process: Process, record: Path) -> None:
        self._process = process
        self._record = record

    def acknowledged(self) -> int:
        """How much was acknowledged so far."""
        return sum(each.acknowledged_at is not None for each in read_record(self._record))

    def until_acknowledged(self, number: int) -> None:
        """Wait until so much was acknowledged.

        Raises:
            HarnessFailed: in vain, or the load has ended.
        """
        until(
            lambda: self.acknowledged() >= number or self._process.has_ended,
            f"{number} acknowledgements",
            patience_seconds=600,
        )
        if self._process.has_ended:
            raise HarnessFailed(f"The load has ended: {self._process.tail()}")

    def end(self) -> list[Asked]:
        """Let it finish what it has begun; what it asked for and was told.

        Raises:
            HarnessFailed: it ended by an error.
        """
        code = self._process.stop(patience_seconds=180)
        if code != 0:
            raise HarnessFailed(f"The load ended with {code}: {self._process.tail()}")
        return list(read_record(self._record))


def _is_settled() -> bool:
    asyncio.run(settle_events())
    return run_in_database_transaction(backlog).events == 0


def _make_users(session: Session) -> tuple[list[str], str]:
    users = [
        User(user_id=uuid.uuid4(), email=f"user{number}@example.com", password_hash="managed")  # noqa: S106  none
        for number in range(USERS)
    ]
    session.add_all(users)
    session.flush()
    for user in users:
        ledger.grant(session, user.user_id, CREDITS, key=f"{SEEDED}{user.user_id}")
    scopes = [api_keys.Scope.CREDITS_SPEND, api_keys.Scope.CREDITS_GRANT]
    issued = api_keys.create_api_key(session, service_name="load", scopes=scopes)
    return [str(user.user_id) for user in users], issued.key
