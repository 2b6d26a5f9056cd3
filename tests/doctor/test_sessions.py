"""Troubles between sessions, which are made with real ones."""

import threading
from collections.abc import Callable, Generator

import psycopg
import pytest
from psycopg import Connection
from sqlalchemy import text

from src.common.database import SessionLocal, dispose_db
from src.common.doctor import connections
from src.common.doctor.catalogue import CHECKS
from src.common.doctor.context import Context
from src.common.doctor.examination import Examined, examine
from src.local_postgres import ConnectionParameters
from tests.cli.test_worker_threads import until
from tests.credits.books import make_user
from tests.doctor.system import asked
from tests.fixtures.databases import Server

Connect = Callable[..., Connection]
LEDGER = ("credit_entries", "credit_postings", "credit_lots", "credit_holds", "credit_debts")
SCANS = text(
    "SELECT relname, seq_scan FROM pg_stat_user_tables"
    " WHERE relname = ANY (CAST(:names AS text[])) ORDER BY 1"
)


one_at_a_time = pytest.mark.xdist_group("replication")
"""Slots and receivers are the server's, which all workers' databases share."""


@pytest.fixture
def connect(fresh_database: ConnectionParameters) -> Generator[Connect]:
    """Open connections to this test's database, closed after it."""
    opened: list[Connection] = []

    def open_one(options: str = "", at: ConnectionParameters = fresh_database) -> Connection:
        opened.append(
            psycopg.connect(
                host=at.host,
                port=at.port,
                user=at.user,
                password=at.password,
                dbname=at.database,
                application_name="application",
                options=options,
            )
        )
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def test_an_idle_database_transaction_is_named_with_its_process(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And how to end it."""
    monkeypatch.setattr(connections, "IDLE_WARN_SECONDS", 0.0)
    idle = connect()
    idle.execute("SELECT 1")
    found = asked("idle-in-transaction")
    assert found.status == "warn"
    assert f"process {idle.info.backend_pid} (application) since" in found.seen
    assert found.next == (
        f'flashslides db psql -c "SELECT pg_terminate_backend({idle.info.backend_pid})"'
    )
    idle.rollback()
    assert asked("idle-in-transaction").status == "ok"


def test_who_blocks_whom_is_named(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both processes; the next step ends the one that waits for nobody."""
    monkeypatch.setattr(connections, "BLOCKED_WARN_SECONDS", 0.0)
    blocker, waiter = connect(), connect()
    blocker.execute("LOCK TABLE users")
    thread = threading.Thread(target=waiter.execute, args=["LOCK TABLE users"])
    thread.start()
    until(lambda: asked("blocked-sessions").status == "warn")
    found = asked("blocked-sessions")
    blocker.rollback()
    thread.join()
    assert f"process {waiter.info.backend_pid} (application) waits for" in found.seen
    assert f"pg_terminate_backend({blocker.info.backend_pid})" in (found.next or "")


def test_who_blocks_whom_in_another_database_is_not_named(
    connect: Connect, worker_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks after this one may not even know of that one."""
    monkeypatch.setattr(connections, "BLOCKED_WARN_SECONDS", 0.0)
    blocker, waiter, looking = (connect(at=worker_database) for _ in range(3))
    waits = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
    blocker.execute("LOCK TABLE users")
    thread = threading.Thread(target=waiter.execute, args=["LOCK TABLE users"])
    thread.start()
    until(lambda: looking.execute(waits, [waiter.info.backend_pid]).fetchone() == (True,))
    found = asked("blocked-sessions")
    blocker.rollback()
    thread.join()
    assert found.status == "ok"


def test_a_prepared_database_transaction_that_blocks_is_named(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no process to end: PostgreSQL calls it 0."""
    monkeypatch.setattr(connections, "BLOCKED_WARN_SECONDS", 0.0)
    preparer, waiter = connect(), connect()
    preparer.autocommit = True
    preparer.execute("BEGIN")
    preparer.execute("LOCK TABLE users IN SHARE MODE")
    preparer.execute("PREPARE TRANSACTION 'it''s left'")
    thread = threading.Thread(target=waiter.execute, args=["LOCK TABLE users"])
    thread.start()
    try:
        until(lambda: asked("blocked-sessions").status == "warn")
        found = asked("blocked-sessions")
    finally:
        preparer.execute("ROLLBACK PREPARED 'it''s left'")
        thread.join()
    assert 'waits for a prepared database transaction ("it\'s left") for' in found.seen
    assert "ROLLBACK PREPARED 'it''s left'" in (found.next or "")
    assert "pg_terminate_backend" not in (found.next or "")


def test_deadlocks_are_counted(connect: Connect) -> None:
    """Two sessions that lock two things in two orders."""
    one, other = (connect(options="-c deadlock_timeout=50ms") for _ in range(2))
    one.execute("SELECT pg_advisory_xact_lock(1)")
    other.execute("SELECT pg_advisory_xact_lock(2)")
    failures: list[psycopg.Error] = []

    def lock_the_other_s() -> None:
        try:
            one.execute("SELECT pg_advisory_xact_lock(2)")
        except psycopg.errors.DeadlockDetected as error:
            failures.append(error)

    thread = threading.Thread(target=lock_the_other_s)
    thread.start()
    try:
        other.execute("SELECT pg_advisory_xact_lock(1)")
    except psycopg.errors.DeadlockDetected as error:
        failures.append(error)
    other.rollback()
    thread.join()
    one.rollback()
    assert len(failures) == 1
    one.close()
    other.close()
    until(lambda: asked("deadlocks").status == "warn")
    found = asked("deadlocks")
    assert found.seen.startswith("1 deadlock since")
    assert "credits.lock_users" in (found.next or "")


@one_at_a_time
def test_a_replication_slot_of_nobody_is_named(
    server: Server, fresh_database: ConnectionParameters
) -> None:
    """It keeps the log until the disk is full."""
    slot = f"slot_{fresh_database.database[-8:]}"
    with server.admin() as admin:
        admin.execute("SELECT pg_create_physical_replication_slot(%s, true)", [slot])
        try:
            found = asked("replication")
        finally:
            admin.execute("SELECT pg_drop_replication_slot(%s)", [slot])
    assert found.status == "warn"
    assert slot in found.seen
    assert str(found.next).startswith("start its standby again; only if that is gone for good: ")


@one_at_a_time
def test_a_receiver_that_replays_nothing_is_a_standby_like_any(
    fresh_database: ConnectionParameters,
) -> None:
    """The server tells no position of it, as of `pg_receivewal` and of one that just begins."""
    at = fresh_database
    with psycopg.connect(
        host=at.host, port=at.port, user=at.user, password=at.password, replication="true",
        application_name="receiver",
    ):  # fmt: skip
        found = asked("replication")
    assert (found.status, "receiver (async)" in found.seen) == ("ok", True), found.seen


def _everything() -> list[Examined]:
    context = Context()
    found = list(examine(CHECKS, context))
    context.close()
    return found


def test_no_look_reads_a_table_of_the_ledger_whole(
    fresh_database: ConnectionParameters,
) -> None:
    """PostgreSQL's own counters of sequential scans stay where they are, and nothing is unknown."""
    assert fresh_database
    with SessionLocal.begin() as session:
        for _ in range(20):
            make_user(session)
    dispose_db()  # whose session reports what it did
    before = _scans()
    found = _everything()
    dispose_db()
    assert {each.name: each.seen for each in found if each.status == "unknown"} == {}
    assert _scans() == before


def _scans() -> dict[str, int]:
    with SessionLocal() as session:
        session.execute(text("SELECT pg_stat_force_next_flush()"))
        session.commit()
        rows = session.execute(SCANS, {"names": list(LEDGER)}).all()
        return {str(name): int(scans) for name, scans in rows}
