"""`verify` finds any column of any ledger table that is changed behind the ledger's back.

The list comes from the models. What no rule can tell is on the reference page, and on no other.
"""

import re
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import (
    Table,
    delete,
    insert,
    text,
)
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import Capture, Grant, OpenHold, Release, Renew, Spend
from src.common.credits.due import expire_user
from src.common.credits.operations import execute
from src.common.credits.verification.reading import fetch_rows
from src.common.models.transaction import Transaction
from src.common.models.user import User
from src.common.packages import Package
from tests.credits import stripe_side
from tests.credits.books import adjust, from_before, triggers_off
from tests.credits.ledger import at, do, someone
from tests.credits.model_values import MoneyBack
from tests.credits.verification.corrupting import (
    COMPARED_WITH_NOTHING,
    change,
    found,
    is_of_0,
    its_key,
    orphans,
    rows_of,
    tables,
)
from tests.document.document import REPOSITORY

PAGE = REPOSITORY / "docs" / "reference" / "what-verify-finds.md"
ROW = re.compile(r"^\| `(?P<column>\w+\.\w+)` \| (?P<by>.+?) \|$", re.MULTILINE)
FAR = 10_000
FEW, SOME, MANY = stripe_side.PACKAGES


def lives(session: Session) -> list[uuid.UUID]:
    """Users who together have every kind of entry, lot, hold and debt."""
    before = [from_before(session, -30), from_before(session, 70)]
    return [
        a_bygone_debtor(session, before[0]),
        an_heir(session, before[1]),
        a_life(session),
        a_debtor(session),
    ]


def a_life(session: Session) -> uuid.UUID:
    """Grants, a purchase, holds in every state, something of each expired."""
    user_id = someone(session)
    do(session, Grant, user_id, 0, amount=60, expires_at=at(50))
    do(session, Grant, user_id, 2, amount=5, priority=0, reference="welcome")
    do(session, Spend, user_id, 3, amount=10, reference="deck", metadata={"deck": 1})
    do(session, OpenHold, user_id, 4, amount=15, expires_in_seconds=FAR)
    do(session, OpenHold, user_id, 5, amount=9, expires_in_seconds=FAR)
    do(session, Capture, user_id, 6, hold_seq=5, amount=4, final=False)
    do(session, Capture, user_id, 7, hold_seq=5, amount=3)
    do(session, OpenHold, user_id, 8, amount=8, expires_in_seconds=FAR)
    do(session, Release, user_id, 9, hold_seq=8)
    do(session, OpenHold, user_id, 10, amount=7, expires_in_seconds=5)
    do(session, Renew, user_id, 11, hold_seq=10, expires_in_seconds=20)
    do(session, Grant, user_id, 12, amount=30)
    do(session, Capture, user_id, 60, hold_seq=10, amount=7, if_expired="retake")
    execute(session, [adjust(user_id, 3, key="up"), adjust(user_id, -1, key="down")], now=at(61))
    do(session, Grant, user_id, 62, amount=4, expires_at=at(70))
    expire_user(session, user_id, now=at(80))
    session.get_one(User, user_id).credits_balance += 6
    session.flush()
    pay(session, user_id, SOME)
    return user_id


def a_debtor(session: Session) -> uuid.UUID:
    """Refunded after use: a clawback, debts, repayments, and a dispute that was won."""
    user_id = someone(session)
    first = pay(session, user_id, MANY)
    do(session, Spend, user_id, amount=60)
    tell(session, "re", "refund", first, "succeeded", 80)
    do(session, Grant, user_id, amount=25)
    second = pay(session, user_id, MANY)
    tell(session, "dp", "dispute", second, "withdrawn", 30)
    tell(session, "dp", "dispute", second, "reinstated", 30)
    do(session, Spend, user_id, amount=45)
    third = pay(session, user_id, FEW)
    tell(session, "cn", "credit_note", second, "issued", 77)
    tell(session, "re2", "refund", third, "pending", 100)
    return user_id


def a_bygone_debtor(session: Session, user: User) -> uuid.UUID:
    """From before the ledger with a debt, and a purchase of then that was refunded."""
    bought = f"pi_{uuid.uuid4()}"
    with triggers_off(session, "transactions"):
        session.add(
            Transaction(
                user_id=user.user_id,
                stripe_session_id=f"cs_{uuid.uuid4()}",
                payment_intent_id=bought,
                amount_paid_cents=50,
                credits_added=50,
                predates_ledger=True,
            )
        )
    do(session, Grant, user.user_id, amount=10)
    tell(session, "old", "refund", bought, "succeeded", 20)
    return user.user_id


def an_heir(session: Session, user: User) -> uuid.UUID:
    """From before the ledger with a balance."""
    do(session, Spend, user.user_id, amount=1)
    return user.user_id


def pay(session: Session, user_id: uuid.UUID, package: Package) -> str:
    """Buy it; the payment's name."""
    name = f"pi_{uuid.uuid4()}"
    stripe_side.pay(session, user_id, name, package)
    return name


def tell(session: Session, name: str, kind: str, payment: str, status: str, cents: int) -> None:
    """Stripe says this of money back."""
    stripe_side.tell(session, MoneyBack(name, kind, payment, status, cents))


@pytest.fixture
def people(db: Session) -> list[uuid.UUID]:
    """All of them, in a database in which any value can be written."""
    user_ids = lives(db)
    db.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
    for user_id in user_ids:
        assert found(db, user_id) == []
    for constraint, table in db.execute(
        text(
            "SELECT conname, conrelid::regclass::text FROM pg_constraint"
            " WHERE contype = 'c' AND conrelid::regclass::text ~ '^(credit_|users)'"
        )
    ).all():
        db.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT {constraint}"))
    db.execute(text("SET LOCAL session_replication_role = replica"))
    return user_ids


def representatives(session: Session, table: Table, user_id: uuid.UUID) -> Sequence[Any]:
    """The user's rows in the table; of entries the first of each kind, and every expiry."""
    rows = rows_of(session, table, user_id)
    if table.name != "credit_entries":
        return rows
    kinds = {(row.kind, row.related_seq is None, row.amount > 0): row for row in reversed(rows)}
    return [*kinds.values(), *(row for row in rows if row.kind.endswith("_expiry"))]


def test_every_column_of_every_ledger_table(db: Session, people: list[uuid.UUID]) -> None:
    """Changed in each kind of row it is found, or the page says that nothing tells what it was."""
    missed: set[str] = set()
    for table in tables():
        for user_id in people:
            for row in representatives(db, table, user_id):
                for column in table.columns:
                    with db.begin_nested() as savepoint:
                        change(db, table, row, column)
                        if not (found(db, user_id) or orphans(db)):
                            missed.add(f"{table.name}.{column.name}")
                        savepoint.rollback()
    said = ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert missed == {column for column, by in said if by.startswith("nothing:")}
    assert missed == COMPARED_WITH_NOTHING


def test_a_row_too_few_or_too_many(db: Session, people: list[uuid.UUID]) -> None:
    """Found in every table, but for metadata that is gone, as erasure takes it away."""
    for table in tables():
        for user_id in people:
            for row in representatives(db, table, user_id):
                with db.begin_nested() as savepoint:
                    db.execute(delete(table).where(*its_key(table, row)))
                    gone = found(db, user_id)
                    savepoint.rollback()
                with db.begin_nested() as savepoint:
                    again = {**row._asdict(), "seq": row.seq + 1_000}
                    if table.name == "credit_entries":
                        again["idempotency_key"] = "another"
                    if table.name == "credit_lots":
                        again["transaction_id"] = None
                    db.execute(insert(table).values(again))
                    doubled = found(db, user_id)
                    savepoint.rollback()
                assert doubled
                assert gone or table.name == "credit_entry_metadata" or is_of_0(table, row)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE users SET credits_balance = credits_balance + 1",
        "UPDATE users SET credits_version = credits_version + 1",
        "UPDATE transactions SET credits_added = credits_added + 1 WHERE NOT predates_ledger",
        "UPDATE transactions SET stripe_session_id = 'cs_x' WHERE credits_added = 40",
        "UPDATE transactions SET refunded_cents = refunded_cents + 1",
        "UPDATE transactions SET disputed_cents = disputed_cents + 1",
        "UPDATE credit_debts SET outstanding = outstanding + 1 WHERE outstanding > 0",
        "UPDATE credit_debts SET outstanding = 0 WHERE outstanding > 0",
        "INSERT INTO credit_debts SELECT user_id, max(seq), 7 FROM credit_lots GROUP BY user_id",
        "UPDATE stripe_reversals SET amount_cents = 0 WHERE status IN ('succeeded', 'issued')",
        "UPDATE stripe_reversals SET status = 'failed' WHERE kind = 'refund'",
    ],
)
def test_what_a_superuser_did_unseen(db: Session, people: list[uuid.UUID], statement: str) -> None:
    """Balances, purchases, debts invented, changed or forgiven, refunds rewritten: whose, is said.

    Everybody whose rows the statement changed differs, and nobody else.
    """
    before = {user_id: all_of(db, user_id) for user_id in people}
    db.execute(text(statement))
    changed_users = {user_id for user_id in people if all_of(db, user_id) != before[user_id]}
    assert changed_users
    assert {user_id for user_id in people if found(db, user_id)} == changed_users


def all_of(session: Session, user_id: uuid.UUID) -> object:
    """The user's rows as they are."""
    return fetch_rows(session, [user_id])


def test_the_page_lists_every_column() -> None:
    """As the models have them; nothing else."""
    listed = [column for column, _ in ROW.findall(PAGE.read_text(encoding="utf-8"))]
    columns = [f"{table.name}.{column.name}" for table in tables() for column in table.columns]
    assert sorted(listed) == sorted([*columns, "users.credits_balance", "users.credits_version"])
