"""Kinds of work side by side: none waits for another, and all end when they are told to."""

import asyncio
import datetime as dt
import json
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import func, select, text, update
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from src.cli import work, worker
from src.cli.shutdown import Shutdown
from src.common.database import SessionLocal, run_in_database_transaction
from src.common.models.reconciliation import Reconciliation
from src.common.models.stripe_event import StripeEvent
from src.common.purchases import reconciliations
from src.common.stripe.inbox import get_event, store_event
from src.common.stripe.wire import parse_event
from src.local_postgres import ConnectionParameters
from tests.cli.processes import PATIENCE_SECONDS, Program, stop
from tests.credits.books import make_user
from tests.fixtures.databases import environment_of
from tests.stripe.payments import make_event, make_session

END_SECONDS = 30
"""Far less than what the worker waits for in these tests; how long it waits has a test."""


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition to come true; fail if it never does."""
    waiting = Retrying(
        retry=retry_if_result(lambda found: not found),
        wait=wait_fixed(0.05),
        stop=stop_after_delay(PATIENCE_SECONDS),
    )
    waiting(condition)


@contextmanager
def silent_server() -> Generator[tuple[int, Callable[[], int]]]:
    """A port that takes connections and says nothing, and how many it has taken."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):  # the test is over
                while True:
                    taken.append(listener.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        yield int(listener.getsockname()[1]), lambda: len(taken)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for each in taken:
        each.close()


@pytest.fixture
def silent_stripe(
    tmp_path: Path, fresh_database: ConnectionParameters
) -> Generator[tuple[Program, Callable[[], int]]]:
    """The command beside a Stripe that never answers, patiently waited for; how often asked."""
    with silent_server() as (port, asked):
        environment = environment_of(fresh_database) | {
            "STRIPE_SECRET_KEY": "sk_test_1",
            "STRIPE_API_BASE_URL": f"http://127.0.0.1:{port}",
            "STRIPE_TIMEOUT_SECONDS": "600",
            "FLASHSLIDES_DATA_DIR": str(tmp_path / "data"),
        }
        yield Program(tmp_path, environment), asked


def store(event_type: str, stripe_object: dict[str, object]) -> str:
    """An event that somebody stored and died over; due at once."""
    event = make_event(stripe_object, event_type)
    body = json.dumps(event).encode()
    with SessionLocal.begin() as session:
        store_event(session, parse_event(body), body)
        session.execute(
            update(StripeEvent)
            .where(StripeEvent.event_id == event["id"])
            .values(lease_expires_at=None)
        )
    return str(event["id"])


def event_of(event_id: str) -> StripeEvent:
    """An event as the inbox has it now."""
    with SessionLocal() as session:
        return get_event(session, event_id)


def test_while_stripe_is_silent_the_rest_goes_on_and_sigterm_ends_it(
    silent_stripe: tuple[Program, Callable[[], int]],
) -> None:
    """A comparison and an event wait for Stripe; what needs no answer is settled, also later.

    Told to end, the worker ends at once: the event's attempt has not been, and the comparison is
    taken up where it stood by the next worker, not after the interval.
    """
    program, asked = silent_stripe
    with SessionLocal.begin() as session:
        user = make_user(session)
    asking = store(
        "payment_intent.succeeded",
        {"id": "pi_1", "object": "payment_intent", "livemode": False, "status": "succeeded"},
    )
    process = program.start("worker")
    until(lambda: asked() >= 2)
    for _ in range(2):
        paid = store("checkout.session.completed", dict(make_session(user)))
        until(lambda paid=paid: event_of(paid).status == "processed")  # type: ignore[misc]  # mypy has no types for defaults
    began = time.monotonic()
    assert stop(process, signal.SIGTERM) == 0
    assert time.monotonic() - began < END_SECONDS
    left = event_of(asking)
    assert (left.status, left.attempts, left.lease_expires_at) == ("received", 1, None)
    with SessionLocal() as session:
        run = session.scalars(select(Reconciliation)).one()
    assert (run.status, run.lease_expires_at) == ("running", None)
    is_due = run_in_database_transaction(
        lambda session: reconciliations.is_due(
            session, interval_seconds=3_600, livemode=False, since=run.since_at
        )
    )
    assert is_due
    before = asked()
    process = program.start("worker")
    until(lambda: asked() >= before + 2)
    assert stop(process, signal.SIGTERM) == 0
    with SessionLocal() as session:
        assert session.scalars(select(func.count(Reconciliation.reconciliation_id))).one() == 1


def test_a_worker_that_waits_for_a_lock_ends_in_time(
    tmp_path: Path, fresh_database: ConnectionParameters
) -> None:
    """What the database has not committed has not been; the next worker does it."""
    environment = environment_of(fresh_database) | {"DATABASE_LOCK_TIMEOUT_MS": "600000"}
    program = Program(tmp_path, environment | {"FLASHSLIDES_DATA_DIR": str(tmp_path / "data")})
    with SessionLocal.begin() as session:
        user = make_user(session)
    event_id = store("checkout.session.completed", dict(make_session(user)))
    with SessionLocal() as other:
        other.execute(text("SELECT FROM users FOR UPDATE"))
        process = program.start("worker")
        waiting = text(
            "SELECT count(*) > 0 FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )

        def is_waiting() -> bool:
            with SessionLocal() as session:
                return bool(session.scalars(waiting).one())

        until(is_waiting)
        began = time.monotonic()
        assert stop(process, signal.SIGTERM) == 0
        assert time.monotonic() - began < END_SECONDS
    assert event_of(event_id).status == "received"
    with SessionLocal.begin() as session:
        session.execute(update(StripeEvent).values(lease_expires_at=None, next_attempt_at=None))
    program.run("worker", "--once")
    assert event_of(event_id).status == "processed"


def test_a_promised_retry_is_kept_while_nothing_else_is_due(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that rests for an hour between rounds looks after what it has promised."""
    assert fresh_database
    monkeypatch.setattr(worker, "INTERVAL_SECONDS", 3_600.0)
    unknown = make_session(uuid.UUID(int=9))
    with worker.working():
        first = store("checkout.session.completed", dict(unknown))
        until(lambda: event_of(first).status == "unmatched")
        broken = store("checkout.session.completed", dict(unknown | {"amount_total": "none"}))
        until(lambda: event_of(broken).attempts >= 3)
    assert event_of(broken).status == "failed"


@pytest.mark.usefixtures("fresh_database")  # for the signs of life
@pytest.mark.parametrize("stuck", list(work.WORK))
def test_no_kind_of_work_waits_for_another(monkeypatch: pytest.MonkeyPatch, stuck: str) -> None:
    """One never returns; all the others have their turn again and again, and it is cut off."""
    turns = {name: threading.Semaphore(0) for name in work.WORK}
    released = threading.Event()

    def step_of(name: str) -> Callable[[], bool]:
        def step() -> bool:
            turns[name].release()
            if name == stuck:
                released.wait()
            return True

        return step

    for name in work.WORK:
        monkeypatch.setitem(work.WORK, name, step_of(name))
    workers = worker.Workers(0.01)
    workers.start()
    others = [turn for name, turn in turns.items() if name != stuck]
    assert all(turn.acquire(timeout=PATIENCE_SECONDS) for turn in others for _ in range(3))
    assert f"worker: {stuck}" in workers.stop(0.2)
    released.set()
    assert workers.stop(PATIENCE_SECONDS) == []


def test_sigterm_ends_a_worker_within_five_seconds() -> None:
    """What a database transaction may still take, and a second for the process."""
    assert worker.STOP_TIMEOUT_SECONDS <= 4


def test_a_coroutine_is_cancelled_before_or_while_it_runs() -> None:
    """Whoever asks for the end need not know which."""
    shutdown, begun = Shutdown(), threading.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    ended: list[type[BaseException]] = []

    def run() -> None:
        try:
            shutdown.run(wait())
        except asyncio.CancelledError as error:
            ended.append(type(error))

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(PATIENCE_SECONDS)
    shutdown.ask()
    thread.join(PATIENCE_SECONDS)
    run()
    assert ended == [asyncio.CancelledError] * 2


def test_a_comparison_that_was_cut_off_is_due(fresh_database: ConnectionParameters) -> None:
    """At once, however long the interval; not while somebody has it, nor once it is finished."""
    assert fresh_database
    since = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)

    def is_due() -> bool:
        return run_in_database_transaction(
            lambda session: reconciliations.is_due(
                session, interval_seconds=86_400, livemode=False, since=since
            )
        )

    assert is_due()
    with SessionLocal.begin() as session:
        run = reconciliations.begin(
            session,
            livemode=False,
            account=None,
            since=since,
            until=since + dt.timedelta(days=1),
            repairs=True,
            resumes=False,
            first_stage="sessions",
        )
    assert not is_due()
    run_in_database_transaction(lambda s: reconciliations.release(s, run.reconciliation_id))
    assert is_due()
    run_in_database_transaction(lambda s: reconciliations.finish(s, run.reconciliation_id))
    assert not is_due()
