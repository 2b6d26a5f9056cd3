"""The batch engine as tests use it: with settings they choose, asked for much at once."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager

import psycopg
import pytest
from prometheus_client import REGISTRY

from src.common.credits.domain import rules
from src.common.credits.domain.book import Book
from src.common.credits.domain.commands import Command, Result
from src.common.credits.engine.engine import Engine
from src.common.exceptions import ExceptionWithErrorType
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.postgres.drivers import open_connection

APPLICATION_NAME = "engine-under-test"
_METRICS = "flashslides_credits_engine"
_WAITING = """
SELECT pid FROM pg_stat_activity WHERE application_name = %s
AND datname = current_database() AND wait_event_type = 'Lock'
"""


@asynccontextmanager
async def running(**changed: object) -> AsyncGenerator[Engine]:
    """An engine on the database the settings name; `changed` are settings by their names."""
    named = {"database_application_name": APPLICATION_NAME}
    settings = get_settings().model_copy(update=named | changed)
    async with Engine.from_settings(settings) as engine:
        yield engine


async def all_at_once(engine: Engine, commands: Sequence[Command]) -> list[Result | BaseException]:
    """What each caller is answered or told, in the order of the commands."""
    asked = [engine.submit(command) for command in commands]
    return await asyncio.gather(*asked, return_exceptions=True)


def told(outcome: Result | BaseException) -> str:
    """One word for an outcome: `done`, `replayed`, or the error's type."""
    if isinstance(outcome, Result):
        return "replayed" if outcome.replayed else "done"
    if isinstance(outcome, ExceptionWithErrorType):
        return outcome.error_type
    return type(outcome).__name__


def metric(name: str) -> float:
    """What the engine has told Prometheus so far."""
    value = REGISTRY.get_sample_value(f"{_METRICS}_{name}")
    assert value is not None
    return value


def make_rules_fail(monkeypatch: pytest.MonkeyPatch, is_meant: Callable[[Command], bool]) -> None:
    """Have the rules fail by a bug of theirs wherever such a command is decided on."""
    apply = rules.apply

    def apply_with_a_bug(book: Book, command: Command, *, open_holds_max: int) -> Result:
        if is_meant(command):
            raise ZeroDivisionError
        return apply(book, command, open_holds_max=open_holds_max)

    monkeypatch.setattr(rules, "apply", apply_with_a_bug)


@contextmanager
def locked(database: ConnectionParameters, who: uuid.UUID) -> Generator[psycopg.Connection]:
    """Somebody else's database transaction keeps this user's row locked until it ends."""
    with open_connection(database) as other:
        other.execute("BEGIN")
        other.execute("SELECT FROM users WHERE user_id = %s FOR UPDATE", [who])
        yield other


@asynccontextmanager
async def writes_held_up(database: ConnectionParameters) -> AsyncGenerator[None]:
    """No entry can be written until this database transaction ends."""
    with open_connection(database) as other:
        other.execute("BEGIN")
        # What the engine has written it commits from this event loop, which must not wait for it.
        await asyncio.to_thread(other.execute, "LOCK TABLE credit_entries IN SHARE MODE")
        yield


async def until_waiting(database: ConnectionParameters, number: int = 1) -> list[int]:
    """Wait until so many connections of the engine wait for a lock; their process ids."""
    with open_connection(database) as admin:
        while True:
            rows = admin.execute(_WAITING, [APPLICATION_NAME]).fetchall()
            if len(rows) == number:
                return [pid for (pid,) in rows]
            await asyncio.sleep(0.005)  # the engine shares this event loop
