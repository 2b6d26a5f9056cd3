"""One user, or one kind of work, that fails: noted, named, and nobody else's concern."""

import json
import uuid
from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from src.cli import work
from src.common import worker_failures
from src.common.credits import unbookable
from src.common.credits.domain import rules
from src.common.credits.domain.book import Book, StoredBook
from src.common.credits.domain.commands import Grant
from src.common.credits.verification import drift
from src.common.credits.verification.reading import Users, begin_snapshot, fetch_rows
from src.common.credits.verification.recompute import EVERYBODY, recompute_one_by_one
from src.common.credits.verification.report import Report
from src.common.credits.verification.stored import StoredRows, UnreadableRows
from src.common.database import SessionLocal, run_in_database_transaction
from src.common.models import CreditBookingFailure, User
from src.common.postgres.errors import RetryableDatabaseError
from src.common.postgres.kept_errors import KeptError
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.cli.conftest import RunCommand
from tests.credits.committed import balances
from tests.credits.ledger import at, do, someone
from tests.credits.verification.test_verify import corrupt
from tests.fixtures.databases import Server

LONG_AGO = -10 * 365 * 86_400
"""Seconds before the tests' start of time."""
DAMAGE = "UPDATE users SET credits_balance = 11 WHERE user_id = :user_id"
MEND = "UPDATE users SET credits_balance = 10 WHERE user_id = :user_id"


@pytest.fixture
def people(fresh_database: ConnectionParameters) -> Sequence[uuid.UUID]:
    """Five users whose 10 credits expired long ago, in the order in which they did."""
    assert fresh_database
    with SessionLocal.begin() as session:
        made = [someone(session) for _ in range(5)]
        for number, user_id in enumerate(made, 1):
            do(session, Grant, user_id, LONG_AGO, amount=10, expires_at=at(LONG_AGO + number))
    return made


def booked(people: Sequence[uuid.UUID]) -> list[int]:
    """What their rows say, right or wrong."""
    with SessionLocal() as session:
        return [session.get_one(User, user_id).credits_balance for user_id in people]


def noted() -> Sequence[CreditBookingFailure]:
    """Whom the worker could not book."""
    return run_in_database_transaction(unbookable.unbookable_users)


def retry_at_once() -> None:
    """Their next attempt is due."""
    with SessionLocal.begin() as session:
        session.execute(update(CreditBookingFailure).values(next_attempt_at=text("now()")))


@pytest.mark.parametrize("number", [0, 2, 4])
def test_a_user_who_cannot_be_booked_keeps_nobody_else_from_it(
    people: Sequence[uuid.UUID], run_command: RunCommand, number: int
) -> None:
    """The others' expiries are booked; the one is noted, counted and named, until mended."""
    damaged = people[number]
    corrupt(DAMAGE, damaged)
    done = run_command("worker", "--once")
    assert done.exit_code == 1
    assert booked(people) == [11 if user_id == damaged else 0 for user_id in people]
    [failure] = noted()
    assert (failure.user_id, failure.error_type) == (damaged, "LEDGER_UNBALANCED")
    assert str(damaged) in done.err
    named = run_command("verify", "--json").json["unbookable"]
    assert [(each["user_id"], each["error_type"]) for each in named] == [
        (str(damaged), "LEDGER_UNBALANCED")
    ]
    said = run_command("verify")
    assert (said.exit_code, "cannot be booked" in said.out) == (1, True)
    assert failure.message.split(" at ")[0] in " ".join(said.out.split())
    corrupt(MEND, damaged)
    retry_at_once()
    assert run_command("worker", "--once").exit_code == 0
    assert (balances(people), noted()) == ([0] * 5, [])
    assert run_command("verify").exit_code == 0


def test_whoever_fails_again_is_tried_more_rarely(people: Sequence[uuid.UUID]) -> None:
    """After 1, 2, 4 … seconds, a quarter of an hour at most."""
    corrupt(DAMAGE, people[0])
    work.book_batch()
    waits: list[float] = []
    for attempts in range(1, 13):
        [failure] = noted()
        assert failure.attempts == attempts
        waits.append((failure.next_attempt_at - failure.last_failed_at).total_seconds())
        retry_at_once()
        work.book_batch()
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]


def test_whose_books_move_on_is_no_longer_counted(people: Sequence[uuid.UUID]) -> None:
    """Whatever booked them, at that very moment; the worker then forgets them."""
    run_in_database_transaction(
        lambda session: unbookable.note(session, people[0], KeptError("KeyError", "once"))
    )
    assert run_in_database_transaction(unbookable.count_unbookable_users) == 1
    with SessionLocal.begin() as session:
        do(session, Grant, people[0], amount=5)
    assert run_in_database_transaction(unbookable.count_unbookable_users) == 0
    work.book_batch()
    with SessionLocal() as session:
        assert session.scalars(select(CreditBookingFailure)).all() == []


def test_many_who_cannot_be_booked_do_not_fill_the_batch(
    people: Sequence[uuid.UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than a batch holds, all longer overdue than the one who can."""
    monkeypatch.setattr(work, "BATCH_USERS", 2)
    for user_id in people[:4]:
        corrupt(DAMAGE, user_id)
    while work.book_batch():
        pass
    assert booked(people) == [11, 11, 11, 11, 0]
    assert [failure.user_id for failure in noted()] == list(people[:4])


def test_a_bug_of_ours_is_one_users_too(
    people: Sequence[uuid.UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the rules raise over one book is noted without the values that its text may quote."""
    settle = rules.settle

    def fail_for_one(stored: StoredBook) -> Book:
        if stored.user_id == people[1]:
            raise ValueError("Ada Lovelace, ada@example.com")
        return settle(stored)

    monkeypatch.setattr(rules, "settle", fail_for_one)
    work.book_batch()
    assert booked(people) == [0, 10, 0, 0, 0]
    [failure] = noted()
    assert (failure.error_type, failure.message) == ("ValueError", "ValueError in fail_for_one")


@pytest.mark.parametrize(("sqlstate", "is_noted"), [("57014", True), ("40001", False)])
def test_a_busy_database_is_nobodys_fault(
    people: Sequence[uuid.UUID],
    monkeypatch: pytest.MonkeyPatch,
    sqlstate: str,
    *,
    is_noted: bool,
) -> None:
    """Nobody is noted for it; but what takes too long for one user takes only theirs."""
    settle = rules.settle

    def fail_for_one(stored: StoredBook) -> Book:
        if stored.user_id == people[1]:
            raise RetryableDatabaseError(sqlstate, None, "a test")
        return settle(stored)

    monkeypatch.setattr(rules, "settle", fail_for_one)
    monkeypatch.setattr("src.common.postgres.retries.ATTEMPTS_MAX", 1)
    if is_noted:
        work.book_batch()
        assert booked(people) == [0, 10, 0, 0, 0]
    else:
        with pytest.raises(RetryableDatabaseError):
            work.book_batch()
    assert len(noted()) == is_noted


def test_a_user_who_cannot_be_verified_counts_as_differing(
    people: Sequence[uuid.UUID], monkeypatch: pytest.MonkeyPatch, run_command: RunCommand
) -> None:
    """The slice goes on past them, a real difference beside them is found, the pass ends."""

    def fail_for_one(session: Session, users: Users) -> list[StoredRows | UnreadableRows]:
        rows = fetch_rows(session, users)
        if any(each.user_id == people[1] for each in rows):
            session.execute(text("SELECT 1 / 0"))
        return rows

    monkeypatch.setattr("src.common.credits.verification.recompute.fetch_rows", fail_for_one)
    corrupt(DAMAGE, people[3])
    done = run_command("worker", "--once")
    assert "Books differ" in done.err
    found = run_in_database_transaction(drift.drift)
    assert found.users == 2
    assert found.age_seconds is not None
    with SessionLocal() as session:
        report = Report()
        begin_snapshot(session)
        recompute_one_by_one(session, report, EVERYBODY)
        assert {(each.user_id, each.found) for each in report.first} >= {
            (people[1], "DivisionByZero: division by zero")
        }
    by_command = run_command("verify", "--json")
    told = json.loads(by_command.out)
    assert (by_command.exit_code, told["users"], told["differing_users"]) == (1, 5, 2)
    assert {each["user_id"] for each in told["first"]} == {str(people[1]), str(people[3])}


@pytest.mark.parametrize("name", list(work.WORK))
def test_a_kind_of_work_that_fails_keeps_no_other_from_its_turn(
    fresh_database: ConnectionParameters,
    run_command: RunCommand,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """Each kind in turn: logged, counted, the others done, and the exit code says so."""
    assert fresh_database
    done: list[str] = []

    def step_of(kind: str) -> Callable[[], bool]:
        def step() -> bool:
            if kind == name:
                raise RuntimeError("a bug")
            done.append(kind)
            return False

        return step

    for kind in work.WORK:
        monkeypatch.setitem(work.WORK, kind, step_of(kind))
    ended = run_command("worker", "--once")
    assert ended.exit_code == 1
    assert done == [kind for kind in work.WORK if kind != name]
    assert "a bug" in ended.err
    assert run_in_database_transaction(worker_failures.count_failures) == {name: 1}
    run_command("worker", "--once")
    assert run_in_database_transaction(worker_failures.count_failures) == {name: 2}


def test_work_that_the_database_refuses_for_good_is_counted(
    server: Server,
    fresh_database: ConnectionParameters,
    run_command: RunCommand,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A role that lacks one table: what needs it is logged by name and counted."""
    role = f"lacking_{fresh_database.database}"
    server.execute("CREATE ROLE {} LOGIN PASSWORD 'x'", role)
    with SessionLocal.begin() as session:
        session.execute(text(f'GRANT ALL ON ALL TABLES IN SCHEMA public TO "{role}"'))
        session.execute(text(f'GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO "{role}"'))
        session.execute(text(f'REVOKE ALL ON stripe_events FROM "{role}"'))
    with monkeypatch.context() as as_role:
        as_role.setenv("DATABASE_USER", role)
        as_role.setenv("DATABASE_PASSWORD", "x")
        get_settings.cache_clear()
        ended = run_command("worker", "--once")
    get_settings.cache_clear()
    counted = run_in_database_transaction(worker_failures.count_failures)
    with SessionLocal.begin() as session:
        session.execute(text(f'DROP OWNED BY "{role}"'))
    server.execute("DROP ROLE {}", role)
    assert ended.exit_code == 1
    assert "permission denied for table stripe_events" in ended.err
    assert counted == {"events": 1, "lookups": 1, "bodies": 1}
    for name in counted:
        assert name in ended.err
