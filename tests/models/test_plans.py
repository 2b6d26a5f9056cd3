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

from src.common.accounts.queries import find_user_by_email
from src.common.accounts.search import UserFilter, search_users
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
FILL_FEW = (
    """INSERT INTO credit_debts (user_id, seq, outstanding) SELECT user_id, n, n / 30
    FROM (SELECT user_id FROM users LIMIT 100) AS few, generate_series(1, 30) AS n""",
    """INSERT INTO credit_holds (user_id, seq, amount, captured, status, expires_at)
    SELECT user_id, n, 1, 0, CASE n WHEN 30 THEN 'open' ELSE 'released' END, now()
    FROM (SELECT user_id FROM users LIMIT 100) AS few, generate_series(1, 30) AS n""",
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


def plan_of(db: Session, ask: Callable[[], object], *, of: int = -1) -> str:
    """How PostgreSQL runs a statement of `ask`, the last, with the very parameters it was sent."""
    sent: list[tuple[str, Any]] = []

    def keep(_connection: object, _cursor: object, statement: str, *rest: Any) -> None:
        sent.append((statement, rest[0]))

    connection = db.connection()
    event.listen(connection, "before_cursor_execute", keep)
    ask()
    event.remove(connection, "before_cursor_execute", keep)
    statement, parameters = sent[of]
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
    filled: Session, wanted: dict[str, Any], index: str
) -> None:
    """The second page starts where the first ended, in index order, and sorts nothing."""
    filled.execute(text("UPDATE users SET is_active = email NOT LIKE '1%'"))
    users = UserFilter(**wanted)
    cursor = search_users(filled, users, cursor=None, limit=20).next_cursor
    assert cursor is not None
    plan = plan_of(filled, lambda: search_users(filled, users, cursor=cursor, limit=20), of=0)
    assert f'"Index Name": "{index}"' in plan
    assert "Sort Key" not in plan


def test_a_part_is_found_by_the_index_of_all_parts(filled: Session) -> None:
    """A part that few have, wherever it begins; a page after the first likewise."""
    filled.execute(text("SELECT gin_clean_pending_list('ix_users_search')"))
    cursor = search_users(filled, UserFilter(), cursor=None, limit=20).next_cursor
    for after in (None, cursor):
        plan = plan_of(
            filled,
            lambda: search_users(filled, UserFilter(text="77@exa"), cursor=after, limit=100),  # noqa: B023
            of=2,
        )
        assert '"Index Name": "ix_users_search"' in plan


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ({"with_debt": True}, "ix_credit_debts_outstanding"),
        ({"with_open_holds": True}, "ix_credit_holds_"),
    ],
)
def test_few_who_owe_or_hold_are_found_by_an_index(
    filled: Session, wanted: dict[str, Any], index: str
) -> None:
    """No walk through all users, each of whom is asked what they owe."""
    filled.execute(text("SET LOCAL session_replication_role = replica"))
    for statement in FILL_FEW:
        filled.execute(text(statement))
    filled.execute(text("ANALYZE credit_debts, credit_holds"))
    plan = plan_of(
        filled, lambda: search_users(filled, UserFilter(**wanted), cursor=None, limit=20), of=0
    )
    assert index in plan
    assert "ix_users_created_at" not in plan
