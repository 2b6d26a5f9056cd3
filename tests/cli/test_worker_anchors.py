"""The worker closes checkpoints: on time, alone, and whole or not at all."""

import signal
import time
import uuid
from pathlib import Path

import pytest
from sqlalchemy import text

from src.common.anchors.file_sink import FileSink
from src.common.anchors.queries import anchor_state
from src.common.credits.domain.commands import Grant
from src.common.database import SessionLocal
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.anchors.anchoring import compared, numbers, rows, spend
from tests.anchors.made import KEY
from tests.cli.conftest import RunCommand
from tests.cli.processes import Program, stop
from tests.cli.test_worker_threads import END_SECONDS, until
from tests.credits.ledger import do, someone
from tests.credits.verification.test_verify import corrupt
from tests.fixtures.databases import environment_of

NOBODY = uuid.UUID(int=0)


@pytest.fixture
def sink(tmp_path: Path) -> FileSink:
    """Where checkpoints go."""
    return FileSink(tmp_path / "anchors")


def settings_of(sink: FileSink) -> dict[str, str]:
    """What the worker is told."""
    return {"ANCHOR_SINKS": sink.name, "ANCHOR_SIGNING_KEY": KEY.written()}


@pytest.fixture
def configured(
    fresh_database: ConnectionParameters, sink: FileSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process is to close them."""
    assert fresh_database
    for name, value in settings_of(sink).items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    with SessionLocal.begin() as session:
        do(session, Grant, someone(session), amount=5)


def test_once_closes_one_where_one_is_due(
    configured: None, run_command: RunCommand, sink: FileSink
) -> None:
    """And none before the interval is over."""
    assert configured is None
    for _ in range(2):
        assert run_command("worker", "--once").exit_code == 0
        assert numbers(sink) == [1]
    corrupt("UPDATE anchor_turns SET attempted_at = attempted_at - interval '1 hour'", NOBODY)
    assert run_command("worker", "--once").exit_code == 0
    assert (numbers(sink), compared(sink).findings) == ([1, 2], 0)


def test_what_was_changed_is_an_error_in_the_log(
    configured: None, run_command: RunCommand, sink: FileSink
) -> None:
    """And no failure of the worker's, which is still there for everything else."""
    assert configured is None
    run_command("worker", "--once")
    [(user_id,)] = rows("SELECT user_id FROM users")
    corrupt(
        "DELETE FROM credit_entries; UPDATE users SET credits_version = 0;"
        "UPDATE anchor_turns SET attempted_at = NULL",
        NOBODY,
    )
    done = run_command("worker", "--once")
    assert "History was changed: run `flashslides verify --anchors`" in done.err
    assert str(user_id) in done.err
    assert numbers(sink) == [1]
    with SessionLocal() as session:
        assert anchor_state(session).contradictions == 1


def test_a_sink_that_does_not_fit_is_an_error_in_the_log(
    configured: None, run_command: RunCommand, tmp_path: Path
) -> None:
    """By its name and the problem's; KEY is in no line."""
    assert configured is None
    run_command("worker", "--once")
    (tmp_path / "anchors").write_bytes(b"")
    corrupt("UPDATE anchor_turns SET attempted_at = NULL", NOBODY)
    done = run_command("worker", "--once")
    assert "A sink does not fit this database" in done.err
    assert "shortened" in done.err
    assert KEY.written() not in done.err


@pytest.fixture
def program(fresh_database: ConnectionParameters, sink: FileSink, tmp_path: Path) -> Program:
    """A worker that closes one checkpoint after the other, over users enough for many steps."""
    with SessionLocal.begin() as session:
        session.execute(
            text(
                "INSERT INTO users (user_id, email, password_hash) SELECT md5(n::text)::uuid,"
                " n || '@example.com', 'managed_externally' FROM generate_series(1, 8000) AS n"
            )
        )
    environment = environment_of(fresh_database) | settings_of(sink)
    environment |= {"ANCHOR_INTERVAL_SECONDS": "1", "FLASHSLIDES_DATA_DIR": str(tmp_path / "data")}
    return Program(tmp_path, environment, is_installed=True)


def test_sigterm_in_the_midst_ends_the_worker(program: Program, sink: FileSink) -> None:
    """At once: what was begun is not there, and the next worker goes on."""
    process = program.start("worker", "--interval-seconds", "0.1")
    until(lambda: rows("SELECT 1 FROM anchor_turns WHERE holder IS NOT NULL") != [])
    began = time.monotonic()
    assert stop(process, signal.SIGTERM) == 0
    assert time.monotonic() - began < END_SECONDS
    # On a busy machine it may have been cut off, and the turn would be free in two minutes.
    corrupt("UPDATE anchor_turns SET expires_at = now()", NOBODY)
    process = program.start("worker", "--interval-seconds", "0.1")
    until(lambda: len(numbers_or_none(sink)) >= 2)
    assert stop(process, signal.SIGTERM) == 0
    assert compared(sink).findings == 0


def test_a_worker_that_is_killed_leaves_whole_checkpoints(program: Program, sink: FileSink) -> None:
    """Wherever that is, again and again: each number once, in order, and all fit."""
    with SessionLocal.begin() as session:
        people = [someone(session) for _ in range(3)]
        for user_id in people:
            do(session, Grant, user_id, amount=50)
    for turn in range(3):
        process = program.start("worker", "--interval-seconds", "0.1")
        until(lambda: rows("SELECT 1 FROM anchor_turns WHERE holder IS NOT NULL") != [])
        time.sleep(0.2 * turn)
        process.kill()
        stop(process)
        spend(*people)
        corrupt("UPDATE anchor_turns SET expires_at = now(), attempted_at = NULL", NOBODY)
    last = len(numbers_or_none(sink))
    process = program.start("worker", "--interval-seconds", "0.1")
    until(lambda: len(numbers_or_none(sink)) > last)
    assert stop(process, signal.SIGTERM) == 0
    found = numbers(sink)
    assert found == list(range(1, len(found) + 1))
    assert compared(sink).findings == 0


def numbers_or_none(sink: FileSink) -> list[int]:
    """Which checkpoints there are, also before there is a file."""
    return numbers(sink) if sink.newest(None) else []
