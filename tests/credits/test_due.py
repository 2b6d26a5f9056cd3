"""What the worker books: whoever is due, found without a look at anybody else."""

import uuid
from collections.abc import Generator, Sequence

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import Grant, OpenHold
from src.common.credits.due import due_users, expire_due
from src.common.credits.persistence.storage import lock_users
from src.common.database import SessionLocal
from src.local_postgres import ConnectionParameters
from tests.credits.committed import balances, make_users
from tests.credits.ledger import at, do, someone
from tests.credits.test_query_plans import rows_looked_at

LIMIT = 10
LOOKS = 2 * LIMIT
"""A look at the next lots and one at the next holds."""
HOUR = 3_600


def overdue(session: Session, *hours: float) -> list[uuid.UUID]:
    """Users with 10 credits that expire so many hours after the tests' start."""
    people: list[uuid.UUID] = []
    for each in hours:
        user_id = someone(session)
        do(session, Grant, user_id, amount=10, expires_at=at(each * HOUR))
        people.append(user_id)
    return people


FILL = """
SET LOCAL session_replication_role = replica;
INSERT INTO users (email, password_hash, credits_balance, credits_version)
    SELECT n || '@example.com', 'x', 200, 200 FROM generate_series(1, 50) AS n;
INSERT INTO credit_lots (user_id, seq, source, priority, granted, remaining, last_seq, is_open,
                         expires_at)
    SELECT user_id, n, 'promo', 10, 1, 1, n, true, CAST(:now AS timestamptz) + n * interval '1 day'
    FROM users, generate_series(1, 200) AS n;
INSERT INTO credit_holds (user_id, seq, amount, captured, status, expires_at)
    SELECT user_id, n, 1, 0, 'open', CAST(:now AS timestamptz) + n * interval '1 hour'
    FROM users, generate_series(201, 400) AS n;
SET LOCAL session_replication_role = origin;
ANALYZE users, credit_lots, credit_holds
"""


@pytest.fixture
def many_lots(fresh_database: ConnectionParameters) -> Generator[Session]:
    """A database with ten thousand lots and as many holds; none is due at the start."""
    assert fresh_database
    with SessionLocal() as session:
        for statement in FILL.split(";"):
            session.execute(text(statement), {"now": at(0)} if ":now" in statement else {})
        yield session


def test_nothing_due_costs_a_look_at_what_is_next(many_lots: Session) -> None:
    """However many will be due some day: the first few of two indexes, and no user."""
    looked_at = rows_looked_at(many_lots, lambda: expire_due(many_lots, limit=LIMIT, now=at(0)))
    assert looked_at <= LOOKS


def test_whoever_is_due_is_found_however_much_else_is_due(many_lots: Session) -> None:
    """With all of it overdue no more is looked at: a batch of many costs what the first did."""
    long_after = at(1_000 * 24 * HOUR)
    looked_at = rows_looked_at(
        many_lots, lambda: next(due_users(many_lots, window=LIMIT, now=long_after))
    )
    assert looked_at <= LOOKS


def test_the_longest_overdue_come_first_each_once(db: Session) -> None:
    """By their earliest lot or hold; who has many of them takes nobody else's place."""
    late, later, latest = overdue(db, 3, 2, 1)
    for hours in (4, 4, 4, 4, 4):
        do(db, Grant, late, amount=10, expires_at=at(hours * HOUR))
    held = someone(db)
    do(db, Grant, held, amount=10)
    do(db, OpenHold, held, amount=10, expires_in_seconds=HOUR // 2)
    assert list(due_users(db, window=1, now=at(5 * HOUR))) == [held, latest, later, late]
    assert [expire_due(db, limit=3, now=at(5 * HOUR)) for _ in range(3)] == [3, 1, 0]


@pytest.fixture
def people(fresh_database: ConnectionParameters) -> Sequence[uuid.UUID]:
    """Thirty committed users, the longest overdue first."""
    assert fresh_database
    with SessionLocal.begin() as session:
        return overdue(session, *range(1, 31))


@pytest.mark.parametrize("locked", [1, 5, 25, 30])
def test_locked_users_do_not_hide_the_others(people: Sequence[uuid.UUID], locked: int) -> None:
    """However many of the longest overdue are locked: a batch is as full as the rest allows."""
    batch = min(5, len(people) - locked)
    with SessionLocal() as other, SessionLocal.begin() as session:
        lock_users(other, people[:locked])
        assert expire_due(session, limit=5, now=at(100 * HOUR)) == batch
    expected = [10] * locked + [0] * batch + [10] * (len(people) - locked - batch)
    by_user = dict(zip(people, expected, strict=True))
    assert balances(people) == [by_user[user_id] for user_id in people]


def test_a_batch_is_written_once_for_all_its_users(fresh_database: ConnectionParameters) -> None:
    """Who is not due is not touched."""
    assert fresh_database
    [somebody] = make_users(7)
    with SessionLocal.begin() as session:
        people = overdue(session, 1, 2)
    with SessionLocal.begin() as session:
        assert expire_due(session, now=at(100 * HOUR)) == 2
    assert balances([somebody, *people]) == [7, 0, 0]
