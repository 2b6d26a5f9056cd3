"""Workers leave signs of life, whatever holds up their work."""

import datetime as dt
import threading

import pytest
from sqlalchemy import func, select

from src.cli import work, worker
from src.common import worker_failures, worker_heartbeats
from src.common.database import SessionLocal, run_in_database_transaction
from src.common.models import WorkerHeartbeat
from tests.cli.conftest import RunCommand
from tests.cli.test_worker_threads import until

pytestmark = pytest.mark.usefixtures("fresh_database")


def seen() -> worker_heartbeats.Workers:
    """What the signs say."""
    return run_in_database_transaction(worker_heartbeats.read_workers)


def last_sign() -> dt.datetime:
    """When the newest sign was left."""
    with SessionLocal() as session:
        return session.scalars(select(func.max(WorkerHeartbeat.beat_at))).one()


def test_a_worker_that_is_stuck_in_one_kind_still_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row says which kind that is; in the end it says that it ended."""
    monkeypatch.setattr(worker_heartbeats, "INTERVAL_SECONDS", 0.05)
    stuck, goes_on = threading.Event(), threading.Event()

    def never_ends() -> bool:
        stuck.set()
        goes_on.wait()
        return False

    monkeypatch.setitem(work.WORK, "bookings", never_ends)
    with worker.working():
        assert stuck.wait(60)
        until(lambda: (seen().alive, seen().longest_work) == (1, "bookings"))
        first = seen().longest_seconds
        until(lambda: seen().longest_seconds > first)
        goes_on.set()
    until(lambda: seen().alive == 0)
    assert seen().age_seconds is not None


def test_a_step_that_lasts_while_there_is_work_is_not_stuck(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Notices are delivered in one step for as long as there are any."""
    monkeypatch.setattr(worker_heartbeats, "INTERVAL_SECONDS", 0.05)
    begun, goes_on = threading.Event(), threading.Event()

    def lasts() -> bool:
        begun.set()
        goes_on.wait()
        return False

    for name in work.WORK:
        monkeypatch.setitem(work.WORK, name, lasts if name == "deliveries" else lambda: False)
    with worker.working():
        assert begun.wait(60)
        until(lambda: seen().alive == 1)
        before = last_sign()
        until(lambda: last_sign() > before)
        assert seen().longest_work is None
        goes_on.set()


def test_once_leaves_a_sign_that_it_ended(run_command: RunCommand) -> None:
    """For whoever runs it by a timer."""
    assert run_command("worker", "--once").exit_code == 0
    with SessionLocal.begin() as session:
        [row] = session.scalars(select(WorkerHeartbeat)).all()
    assert row.ended_at is not None
    assert (seen().alive, row.work) == (0, None)


def test_every_kind_of_work_has_a_figure_of_its_failures() -> None:
    """Before it fails for the first time too."""
    assert tuple(work.WORK) == worker_failures.KINDS


def test_a_worker_has_no_more_connections_than_is_said() -> None:
    """One a kind of work, and one for the signs."""
    assert len(work.WORK) + 1 == worker_heartbeats.CONNECTIONS_MAX
