"""What one user is asked or changed is planned once on a connection, not at every execution."""

import uuid
from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common.credits import ledger
from src.common.credits.operations import execute
from src.common.models.user import User
from tests.credits.books import InSession, capture, grant, make_user, open_hold, spend
from tests.models.examples import a_transaction

USES = 15
"""psycopg prepares a statement at its sixth use."""
PLANNED_FIRST = 5
"""So often PostgreSQL plans for the values it is given, before it compares."""
PLANS = text("""
    SELECT statement, custom_plans FROM pg_prepared_statements WHERE statement LIKE '%credit_%'
""")


def _spend(session: Session, user: User) -> None:
    execute(session, [spend(user.user_id, 1)])


def _spend_with_metadata(session: Session, user: User) -> None:
    execute(session, [spend(user.user_id, 1, reference="x", metadata={"a": 1})])


def _grant(session: Session, user: User) -> None:
    execute(session, [grant(user.user_id, 5)])


def _hold_and_capture(session: Session, user: User) -> None:
    [hold] = execute(session, [open_hold(user.user_id, 2)])
    execute(session, [capture(user.user_id, hold.seq, 1)])


def _read_balance(session: Session, user: User) -> None:
    ledger.balance(session, user.user_id)


def _assign(session: Session, user: User) -> None:
    user.credits_balance -= 1
    session.commit()


def _buy(session: Session, user: User) -> None:
    user.credits_balance += 5
    session.add(a_transaction(user=user, stripe_session_id=str(uuid.uuid4()), credits_added=5))
    session.commit()


def _custom_plans(session: Session) -> dict[str, int]:
    rows = session.execute(PLANS)
    return {row.statement: row.custom_plans for row in rows}


@pytest.mark.parametrize(
    "work",
    [_spend, _spend_with_metadata, _grant, _hold_and_capture, _read_balance, _assign, _buy],
)
async def test_a_statement_of_one_user_is_planned_once(
    in_session: InSession, work: Callable[[Session, User], object]
) -> None:
    """By every road of a session, on both drivers, and without a setting of the planner."""

    def run(session: Session) -> None:
        user = make_user(session, 1000)
        session.commit()
        before = _custom_plans(session)
        for _ in range(USES):
            work(session, user)
        after = _custom_plans(session)
        assert after
        planned = {name: plans - before.get(name, 0) for name, plans in after.items()}
        assert {name: plans for name, plans in planned.items() if plans > PLANNED_FIRST} == {}

    await in_session(run)
