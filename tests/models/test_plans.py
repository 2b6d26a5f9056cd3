"""The indexes serve the queries they were made for: PostgreSQL's own plans, on enough rows."""

import datetime as dt
import json
import re
import uuid
from collections.abc import Callable, Generator
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.orm import Session

from src.common.accounts.operations import find_user_by_email
from src.common.accounts.queries import list_users
from src.common.database import SessionLocal
from src.common.models import Transaction, User
from src.common.purchases.queries import PurchaseFilter, PurchaseState, list_purchases
from src.local_postgres import ConnectionParameters
from tests.document.document import run

FILL_USERS = text(
    "INSERT INTO users (email, password_hash, preferences)"
    " SELECT n || '@example.com', 'x', jsonb_build_object('company', 'Company ' || n,"
    " 'marketing_consent', n % 2 = 0, 'theme', 'Theme ' || n)"
    " FROM generate_series(1, 8000) AS n"
)
FILL_TRANSACTIONS = text(
    "INSERT INTO transactions"
    " (user_id, stripe_session_id, amount_paid_cents, credits_added, created_at)"
    " SELECT user_id, email || n, 500, 500, now() - n * interval '1 minute'"
    " FROM generate_series(1, 300) AS n, (SELECT user_id, email FROM users LIMIT 20) AS buyers"
)
GENERIC_PLANS = text(
    "SELECT sum(generic_plans) FROM pg_prepared_statements WHERE statement LIKE '%->>%'"
)


@pytest.fixture
def filled(fresh_database: ConnectionParameters) -> Generator[Session]:
    """A session on a database with enough users and transactions to make an index worth while."""
    assert fresh_database
    with SessionLocal() as db:
        db.execute(FILL_USERS)
        db.execute(FILL_TRANSACTIONS)
        db.execute(text("SELECT gin_clean_pending_list('ix_users_preferences')"))
        db.execute(text("ANALYZE users, transactions"))
        yield db


def plan_of(db: Session, ask: Callable[[], object]) -> str:
    """How PostgreSQL runs the last statement of `ask`, with the very parameters it was sent."""
    sent: list[tuple[str, Any]] = []

    def keep(_connection: object, _cursor: object, statement: str, *rest: Any) -> None:
        sent.append((statement, rest[0]))

    connection = db.connection()
    event.listen(connection, "before_cursor_execute", keep)
    ask()
    event.remove(connection, "before_cursor_execute", keep)
    statement, parameters = sent[-1]
    return json.dumps(
        connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
    )


def somebody(db: Session) -> uuid.UUID:
    """A user with purchases."""
    return db.scalars(select(Transaction.user_id).limit(1)).one()


def test_users_of_a_company_are_found_by_its_index(filled: Session) -> None:
    """The document's company query scans `ix_users_company`."""
    plan = plan_of(filled, lambda: run("JSONB queries", db=filled))
    assert '"Index Name": "ix_users_company"' in plan


def test_users_of_a_company_are_found_by_its_index_also_when_prepared(filled: Session) -> None:
    """However often the query ran, PostgreSQL takes no generic plan, which would miss the index."""
    for number in range(20):
        company = User.preferences["company"].astext == f"Company {number}"
        filled.scalars(select(User.user_id).where(company)).all()
    assert filled.scalar(GENERIC_PLANS) == 0


def test_containment_is_served_by_the_gin_index(filled: Session) -> None:
    """`preferences @> {...}` scans `ix_users_preferences`."""
    wanted = select(User).where(User.preferences.contains({"theme": "Theme 7"}))
    plan = plan_of(filled, lambda: filled.scalars(wanted).one())
    assert '"Index Name": "ix_users_preferences"' in plan


def test_a_user_is_found_by_email_whatever_its_case(filled: Session) -> None:
    """Signing in scans the unique index on the lower-case e-mail."""
    plan = plan_of(filled, lambda: find_user_by_email(filled, "7@EXAMPLE.com"))
    assert '"Index Name": "uq_users_email_lower"' in plan


def test_a_page_of_purchases_is_a_range_of_an_index(filled: Session) -> None:
    """The second page starts where the first ended, in index order, and sorts nothing."""
    user_id = somebody(filled)
    wanted = PurchaseFilter(user_id=user_id)
    cursor = list_purchases(filled, wanted, cursor=None, limit=20).next_cursor
    assert cursor is not None
    plan = plan_of(filled, lambda: list_purchases(filled, wanted, cursor=cursor, limit=20))
    assert '"Index Name": "ix_transactions_user_id_created_at"' in plan
    assert '"Node Type": "Sort"' not in plan
    assert "Sort Key" not in plan


MONTH = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ({}, "ix_transactions_created_at"),
        ({"since": MONTH, "until": MONTH + dt.timedelta(days=30)}, "ix_transactions_created_at"),
        ({"state": PurchaseState.DISPUTED}, "ix_transactions_money_back"),
        ({"stripe_id": "cs_1"}, "uq_transactions_stripe_session_id"),
        ({"stripe_id": "cus_1"}, "ix_users_stripe_customer_id"),
        ({"stripe_id": "re_1"}, "pk_transactions"),
    ],
)
def test_everybodys_purchases_are_found_by_an_index(
    filled: Session, wanted: dict[str, Any], index: str
) -> None:
    """All, of a month, disputed ones, by an id of Stripe's: no reading of the whole table."""
    plan = plan_of(
        filled, lambda: list_purchases(filled, PurchaseFilter(**wanted), cursor=None, limit=20)
    )
    assert f'"Index Name": "{index}"' in plan
    assert not re.search(r'"Node Type": "Seq Scan"[^{}]*"Relation Name": "transactions"', plan)


@pytest.mark.parametrize(
    ("wanted", "index"),
    [({}, "ix_users_created_at"), ({"inactive": True}, "ix_users_inactive")],
)
def test_a_page_of_users_is_a_range_of_an_index(
    filled: Session, wanted: dict[str, bool], index: str
) -> None:
    """The second page starts where the first ended, in index order, and sorts nothing."""
    filled.execute(text("UPDATE users SET is_active = email NOT LIKE '1%'"))
    cursor = list_users(filled, cursor=None, limit=20, **wanted).next_cursor
    assert cursor is not None
    plan = plan_of(filled, lambda: list_users(filled, cursor=cursor, limit=20, **wanted))
    assert f'"Index Name": "{index}"' in plan
    assert "Sort Key" not in plan
