"""Who fails has no figures, and takes nobody else's away."""

import os
from collections.abc import Generator
from dataclasses import dataclass, field

import psycopg
import pytest

from benchmarks.contestants.base import (
    Clocks,
    ContestantFailed,
    Database,
    Load,
    Outcome,
    Spread,
)
from benchmarks.runner import Runner, Turn
from src.common.database import dispose_db, run_in_database_transaction
from src.common.postgres.engines import database_url
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.credits.books import make_user

LOAD = Load(Spread.UNIFORM, user_count=1, callers=1, seconds=1)


@dataclass
class Sleeper:
    """Writes nothing, and says so; from a turn on it fails, with a connection left open."""

    name: str
    fails_at: int | None = None
    database: Database = Database.LEDGER
    turns: int = 0
    left: list[psycopg.Connection] = field(default_factory=list[psycopg.Connection])

    def run(self, load: Load, clocks: Clocks) -> Outcome:
        """Do nothing, in no time."""
        assert load.callers == 1
        self.turns += 1
        clocks.start()
        clocks.stop()
        if self.turns == self.fails_at:
            self.left.append(connect())
            raise ContestantFailed("it fell asleep")
        return Outcome(
            acknowledged=1,
            latencies_ms=[1.0],
            elapsed_seconds=1.0,
            client_cpu_seconds=0.0,
            unwritten=1,
        )


def connect() -> psycopg.Connection:
    """To the database of the test."""
    url = database_url(get_settings()).set(drivername="postgresql")
    return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)


@pytest.fixture
def admin(fresh_database: ConnectionParameters) -> Generator[psycopg.Connection]:
    """The runner's own connection, to books with something in them."""
    assert fresh_database
    run_in_database_transaction(lambda session: make_user(session, 5))
    dispose_db()
    with connect() as connection:
        yield connection


def test_a_contestant_that_fails_takes_only_its_own_figures_away(
    admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of before too; what it left open is ended, and the others take all their turns."""
    monkeypatch.setattr("benchmarks.runner._OTHER_CLIENTS", _OF_THIS_TEST.format("count(*)"))
    monkeypatch.setattr(
        "benchmarks.runner._END_OTHER_CLIENTS", _OF_THIS_TEST.format("pg_terminate_backend(pid)")
    )
    said: list[str] = []
    good, bad = Sleeper("good"), Sleeper("bad", fails_at=2)
    runner = Runner({Database.LEDGER: admin}, os.getpid(), said.append)
    measured = runner.run([[Turn(good, LOAD), Turn(bad, LOAD)]], repeats=4)
    assert [(each.contestant, each.repetition) for each in measured] == [
        ("good", repetition) for repetition in range(1, 5)
    ]
    assert (good.turns, bad.turns, runner.failed) == (4, 2, {"bad": "it fell asleep"})
    assert "bad takes no more turns: it fell asleep" in said
    with pytest.raises(psycopg.OperationalError):
        bad.left[0].execute("SELECT 1")


_OF_THIS_TEST = (
    "SELECT {} FROM pg_stat_activity WHERE datname = current_database() AND pid <> ALL (%s)"
)
