"""The workers verify everybody's books slice by slice, and the metric tells what they found."""

import multiprocessing
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import Grant
from src.common.credits.verification.drift import Drift, drift, verify_next_slice
from src.common.credits.verification.report import Report
from src.common.database import SessionLocal, get_engine, run_in_database_transaction
from src.common.models import CreditVerification
from src.local_postgres import ConnectionParameters
from tests.credits.crashes import counting, work_until
from tests.credits.ledger import do, someone
from tests.credits.verification.test_verify import corrupt
from tests.fixtures.databases import environment_of

USERS = 7
SLICE = 3
SLICES = 3
"""In a pass: 3 + 3 + 1 users."""
A_CENT_TOO_MANY = "UPDATE users SET credits_balance = 11 WHERE user_id = :user_id"
MENDED = "UPDATE users SET credits_balance = 10 WHERE user_id = :user_id"
GONE = "DELETE FROM users WHERE user_id = :user_id"

next_slice = partial(verify_next_slice, slice_users=SLICE, interval_seconds=0)


@pytest.fixture
def people(fresh_database: ConnectionParameters) -> Sequence[uuid.UUID]:
    """Users with 10 credits each, in the order in which they are verified."""
    assert fresh_database
    with SessionLocal.begin() as session:
        made = [someone(session) for _ in range(USERS)]
        for user_id in made:
            do(session, Grant, user_id, amount=10)
    return sorted(made)


def work(slices: int = 1) -> Report:
    """The report of the last of so many slices, each in a database transaction of its own."""
    report = None
    for _ in range(slices):
        report = run_in_database_transaction(next_slice)
        assert report is not None
    assert report is not None
    return report


def told() -> int:
    """The metric."""
    return run_in_database_transaction(drift).users


def progress() -> tuple[int, uuid.UUID, int | None]:
    """Users verified in this pass, the cursor, and the users of the last whole pass."""
    with SessionLocal() as session:
        row = session.execute(
            select(
                CreditVerification.users,
                CreditVerification.cursor,
                CreditVerification.last_pass_users,
            )
        ).one_or_none()
        return (0, uuid.UUID(int=0), None) if row is None else (row[0], row[1], row[2])


def test_nothing_is_known_before_the_first_slice(people: Sequence[uuid.UUID]) -> None:
    """No difference was found, and no pass has ended; after one pass both are known."""
    assert people
    assert run_in_database_transaction(drift) == Drift(users=0, age_seconds=None)
    work(SLICES - 1)
    assert run_in_database_transaction(drift).age_seconds is None
    work()
    found = run_in_database_transaction(drift)
    assert found.users == 0
    assert found.age_seconds is not None
    assert found.age_seconds >= 0


def test_a_pass_goes_over_everybody_once_and_begins_again(people: Sequence[uuid.UUID]) -> None:
    """Slice by slice in the order of the ids; an empty database is a pass of its own."""
    seen: list[tuple[int, uuid.UUID, int | None]] = []
    for _ in range(SLICES + 1):
        work()
        seen.append(progress())
    start = uuid.UUID(int=0)
    assert seen == [
        (3, people[3], None),
        (6, people[6], None),
        (0, start, USERS),
        (3, people[3], USERS),
    ]


def test_nobody_to_verify_is_a_whole_pass(fresh_database: ConnectionParameters) -> None:
    """A new database says at once that nothing differs."""
    assert fresh_database
    assert work().users == 0
    assert progress() == (0, uuid.UUID(int=0), 0)


@pytest.mark.parametrize("number", [0, SLICE - 1, SLICE, USERS - 1])
def test_a_difference_shows_within_a_pass_and_goes_once_mended(
    people: Sequence[uuid.UUID], number: int
) -> None:
    """Found in its slice, told until a whole pass has found nothing."""
    corrupt(A_CENT_TOO_MANY, people[number])
    its_slice = number // SLICE + 1
    if its_slice > 1:
        work(its_slice - 1)
        assert told() == 0
    assert work().first[0].user_id == people[number]
    assert told() == 1
    if its_slice < SLICES:
        work(SLICES - its_slice)
    for _ in range(SLICES):
        work()
        assert told() == 1
    corrupt(MENDED, people[number])
    for _ in range(SLICES - 1):
        work()
        assert told() == 1
    work()
    assert told() == 0


@pytest.mark.parametrize("number", [0, SLICE - 1, SLICE, USERS - 1])
def test_books_without_a_user_are_found_wherever_they_lie(
    people: Sequence[uuid.UUID], number: int
) -> None:
    """Before the first user, after the last, and at the seam of two slices: each counted once."""
    corrupt(GONE, people[number])
    found = [work() for _ in range(SLICES - 1)]
    assert sum(report.differing_users for report in found) == 1
    assert progress()[2] == USERS - 1
    assert told() == 1


def test_workers_share_a_pass(people: Sequence[uuid.UUID]) -> None:
    """While one is at a slice the others pass; together nobody is verified twice."""
    work()
    with SessionLocal.begin() as session:
        assert next_slice(session) is not None
        assert [run_in_database_transaction(next_slice) for _ in range(2)] == [None, None]
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(run_in_database_transaction, next_slice) for _ in range(4 * SLICES)]
        reports = [each.result() for each in asked]
    done = [report for report in reports if report is not None]
    users, cursor, last_pass_users = progress()
    assert (len(done) + 2) % SLICES * SLICE == users
    assert last_pass_users == (USERS if len(done) + 2 >= SLICES else None)
    assert cursor == (people[users] if users else uuid.UUID(int=0))


def test_workers_keep_the_pace_together(people: Sequence[uuid.UUID]) -> None:
    """However many ask, the next slice has to wait for its time."""
    assert people
    slow = partial(verify_next_slice, slice_users=SLICE, interval_seconds=3_600)
    assert run_in_database_transaction(slow) is not None
    assert [run_in_database_transaction(slow) for _ in range(3)] == [None] * 3
    with SessionLocal.begin() as session:
        session.execute(text("UPDATE credit_verifications SET next_slice_at = now()"))
    assert run_in_database_transaction(slow) is not None


def test_a_worker_killed_at_any_statement_leaves_its_slice_to_the_next(
    people: Sequence[uuid.UUID], fresh_database: ConnectionParameters
) -> None:
    """Killed with -9 before each statement and after COMMIT: every slice counts just once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.credits.crashes"])
    with counting(get_engine()) as statements:
        work(SLICES)
    last = statements() // SLICES
    for number in range(1, last + 2):
        before = progress()
        ours, theirs = context.Pipe()
        with ours, theirs:
            process = context.Process(
                target=work_until,
                args=(environment_of(fresh_database), next_slice, number, theirs),
            )
            process.start()
            said = ours.recv()
            process.kill()
            process.join()
            process.close()
        assert said == ("committed" if number > last else "at the statement")
        with SessionLocal.begin() as session:  # the server has noticed: the row is free
            session.execute(text("SELECT FROM credit_verifications FOR UPDATE"))
        assert (progress() != before) == (number > last)
    assert progress() == (3, people[3], USERS)
    work(SLICES - 1)
    assert progress() == (0, uuid.UUID(int=0), USERS)


@pytest.mark.parametrize(
    ("column", "value", "constraint"),
    [
        ("verification_id", 2, "one_row"),
        ("users", -1, "counts_not_negative"),
        ("differing_users", -1, "counts_not_negative"),
        ("last_pass_users", 1, "ended_says_what_it_found"),
        ("last_pass_differing_users", 1, "ended_says_what_it_found"),
    ],
)
def test_a_wrong_row_is_refused(db: Session, column: str, value: int, constraint: str) -> None:
    """There is one row, and what it says is possible."""
    with pytest.raises(IntegrityError, match=constraint), db.begin_nested():
        db.execute(insert(CreditVerification).values({column: value}))
