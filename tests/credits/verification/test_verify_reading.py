"""Books are read as of one snapshot, whoever writes meanwhile, in one process or in several."""

import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import Grant, Spend
from src.common.credits.verification import reading
from src.common.credits.verification.comparison import ROWS_CANNOT_BE_READ
from src.common.credits.verification.drift import verify_next_slice
from src.common.credits.verification.reading import Users
from src.common.credits.verification.report import Report
from src.common.credits.verification.verify import verify
from src.common.database import SessionLocal, run_in_database_transaction
from src.common.exceptions import DatabaseBusy
from src.local_postgres import ConnectionParameters
from tests.credits.ledger import do, someone
from tests.credits.verification.test_verify import corrupt

A_CENT_TOO_MANY = "UPDATE users SET credits_balance = 11 WHERE user_id = :user_id"
WITHOUT_END = "UPDATE credit_entries SET created_at = 'infinity' WHERE user_id = :user_id"
GONE = "DELETE FROM users WHERE user_id = :user_id"
Before = Callable[[Session], None]


@pytest.fixture
def people(fresh_database: ConnectionParameters) -> Sequence[uuid.UUID]:
    """Five users with 10 credits each, in the order in which they are verified."""
    assert fresh_database
    with SessionLocal.begin() as session:
        made = [someone(session) for _ in range(5)]
        for user_id in made:
            do(session, Grant, user_id, amount=10)
    return sorted(made)


def before_the_second_table(monkeypatch: pytest.MonkeyPatch, act: Before) -> None:
    """Something happens when users have been read and their books have not."""
    fetch, calls = reading._fetch, [0]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    def acting(session: Session, statement: str, users: Users) -> Sequence[tuple[object, ...]]:
        calls[0] += 1
        if calls[0] == 2:
            act(session)
        return fetch(session, statement, users)

    monkeypatch.setattr(reading, "_fetch", acting)


def whole(**arguments: object) -> Report:
    """The report when all is done."""
    *_, report = verify(SessionLocal, **arguments)  # type: ignore[arg-type]
    return report


@pytest.mark.parametrize("by", ["verify", "worker"])
def test_what_is_committed_between_two_tables_makes_no_difference(
    people: Sequence[uuid.UUID], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """The user's row says 10; the spend that is committed now is in no table that is read then."""

    def spend(_: Session) -> None:
        with SessionLocal.begin() as session:
            do(session, Spend, people[0], 1, amount=3)

    before_the_second_table(monkeypatch, spend)
    if by == "verify":
        report = whole()
    else:
        found = run_in_database_transaction(
            lambda session: verify_next_slice(session, slice_users=9, interval_seconds=0)
        )
        assert found is not None
        report = found
    assert (report.users, report.differences) == (5, 0)
    with SessionLocal() as session:
        balance = text("SELECT credits_balance FROM users WHERE user_id = :id")
        assert session.scalar(balance, {"id": people[0]}) == 7


def test_a_lost_connection_is_a_passing_condition(
    people: Sequence[uuid.UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is nobody's books' fault; the next verification has another connection."""

    def cut_off(session: Session) -> None:
        pid = session.scalar(text("SELECT pg_backend_pid()"))
        with SessionLocal.begin() as another:
            another.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})

    before_the_second_table(monkeypatch, cut_off)
    with pytest.raises(DatabaseBusy):
        whole()
    assert whole().users == len(people)


def test_what_no_driver_can_read_is_a_difference_of_its_user(people: Sequence[uuid.UUID]) -> None:
    """An instant without an end: the others of the batch are verified."""
    corrupt(WITHOUT_END, people[1])
    corrupt(A_CENT_TOO_MANY, people[3])
    report = whole()
    rules = {(each.user_id, each.kind) for each in report.first}
    assert (people[1], ROWS_CANNOT_BE_READ) in rules
    assert (people[3], "users.credits_balance") in rules
    assert {user_id for user_id, _ in rules} == {people[1], people[3]}
    assert report.users == len(people)


def test_books_of_nobody_are_not_taken_for_the_next_users(people: Sequence[uuid.UUID]) -> None:
    """They lie between two users' books in every table; only the orphan is named."""
    corrupt(GONE, people[2])
    report = whole()
    assert {each.user_id for each in report.first} == {people[2]}


@pytest.mark.parametrize("listed", [False, True])
def test_several_processes_find_what_one_finds(people: Sequence[uuid.UUID], listed: bool) -> None:  # noqa: FBT001
    """The same report to the letter, in the order of the users, and one after each batch."""
    corrupt(A_CENT_TOO_MANY, people[1])
    corrupt(WITHOUT_END, people[4])
    user_ids = list(people) if listed else None
    reports = list(verify(SessionLocal, user_ids=user_ids, batch_size=2, jobs=2))
    assert len(reports) == (3 if listed else 4)
    assert reports[-1] == whole(user_ids=user_ids, batch_size=2)


def test_a_span_passes_no_journal_that_is_too_long() -> None:
    """Whoever comes after it, even without an entry, begins another portion."""
    first, long, empty, last = (uuid.UUID(int=number) for number in range(1, 5))
    versions: Any = [(first, 5), (long, reading.JOURNAL_MAX + 1), (empty, 0), (last, 3)]
    assert reading.portions_of(versions) == ([[first], [empty, last]], [long])


def test_an_error_in_one_of_several_processes_arrives(
    people: Sequence[uuid.UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the database is out of reach they say what one process says."""
    assert people
    batches = verify(SessionLocal, user_ids=people, batch_size=2, jobs=2)
    monkeypatch.setenv("DATABASE_PORT", "1")
    with pytest.raises(DatabaseBusy):
        list(batches)
