"""Columns of the ledger changed behind its back, as only a superuser can."""

import datetime as dt
import uuid
from collections.abc import Sequence
from random import Random
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Uuid,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from src.common.credits.verification.comparison import compare_user
from src.common.credits.verification.reading import fetch_rows
from src.common.credits.verification.recompute import EVERYBODY, find_orphans
from src.common.credits.verification.report import Difference, Report
from src.common.models.base import Base
from tests.credits.ledger import at

LEDGER = (
    *("credit_entries", "credit_entry_metadata", "credit_postings"),
    *("credit_lots", "credit_holds", "credit_debts"),
)
COMPARED_WITH_NOTHING = {"credit_entry_metadata.document"}
"""Nothing else says what it was. The reference says so too."""
CHOICES = {
    "kind": ("grant", "spend", "adjustment", "hold", "capture", "release", "clawback", "opening"),
    "status": ("open", "captured", "released", "expired"),
    "source": ("promo", "purchase", "subscription", "adjustment", "opening"),
}


_GAVE_AND_DIED = text("""
SELECT EXISTS (
    SELECT FROM credit_postings JOIN credit_entries USING (user_id, seq)
    JOIN credit_lots AS lots ON (lots.user_id, lots.seq) = (credit_postings.user_id, lot_seq)
    WHERE credit_entries.user_id = :id AND lots.expires_at IS NOT NULL
      AND kind IN ('clawback', 'debt_repayment', 'reinstatement')
)
""")


def tables() -> list[Table]:
    """The ledger's own."""
    return [Base.metadata.tables[name] for name in LEDGER]


def rows_of(session: Session, table: Table, user_id: uuid.UUID) -> Sequence[Any]:
    """The user's rows in the table."""
    return session.execute(
        select(table).where(table.c.user_id == user_id).order_by(*table.primary_key)
    ).all()


def its_key(table: Table, row: Any) -> list[Any]:
    """What finds the row."""
    return [column == getattr(row, column.name) for column in table.primary_key]


def is_of_0(table: Table, row: Any) -> bool:
    """Whether it is a debt that is paid and was never the opening's: nothing of it is left."""
    return table.name == "credit_debts" and not (row.outstanding or row.opening_debt)


def changed(column: Column[Any], value: Any) -> Any:
    """Another value of the column's kind."""
    if column.name in CHOICES:
        choices = CHOICES[column.name]
        return choices[(choices.index(value) + 1) % len(choices)] if value in choices else "spend"
    match column.type:
        case Integer() | SmallInteger():
            return 1 if value is None else value + (1_000 if column.primary_key else 1)
        case Uuid():
            return uuid.uuid4()
        case DateTime():
            return at(0) if value is None else value + dt.timedelta(seconds=1)
        case LargeBinary():
            return bytes(32)
        case Boolean():
            return not value
        case JSONB():
            return {"another": True}
        case _:
            return f"{value or ''}x"


def change(session: Session, table: Table, row: Any, column: Column[Any]) -> None:
    """Write another value there; the caller's savepoint takes it back."""
    value = changed(column, getattr(row, column.name))
    session.execute(update(table).where(*its_key(table, row)).values({column.name: value}))


def found(session: Session, user_id: uuid.UUID) -> list[Difference]:
    """What the rules say of this user's rows, without the sums."""
    [rows] = fetch_rows(session, [user_id])
    return compare_user(rows)


def orphans(session: Session) -> int:
    """How many books without a user there are."""
    report = Report()
    find_orphans(session, report, EVERYBODY)
    return report.differing_users


def corrupt_somewhere(session: Session, user_id: uuid.UUID, random: Random) -> None:
    """Change one column of one of the user's rows, see that `verify` finds it, take it back."""
    table = random.choice(tables())
    rows = [row for row in rows_of(session, table, user_id) if not is_of_0(table, row)]
    if not rows:
        return
    row, column = random.choice(rows), random.choice(list(table.columns))
    name = f"{table.name}.{column.name}"
    if table.name == "credit_debts" and session.scalars(_GAVE_AND_DIED, {"id": user_id}).one():
        return  # how much of what a dead lot gave was asked for in the end, nothing tells
    with session.begin_nested() as savepoint:
        session.execute(text("SET LOCAL session_replication_role = replica"))
        try:
            change(session, table, row, column)
        except IntegrityError:
            savepoint.rollback()  # a CHECK holds for a superuser too
            return
        seen = name in COMPARED_WITH_NOTHING or found(session, user_id) or orphans(session)
        savepoint.rollback()
    assert seen, (name, row)
