"""How the triggers look: what a session did before does not make a large statement slow."""

import json
import uuid
from collections.abc import Generator, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from src.common.credits.operations import execute
from src.common.models.credit_entry import CreditEntry
from tests.credits.books import capture, grant, make_user, open_hold, reverse, spend

PEOPLE = 40
CHANGED = "Named Tuplestore Scan"
EXPLAINED = """
LOAD 'auto_explain';
SET auto_explain.log_min_duration = 0;
SET auto_explain.log_nested_statements = on;
SET auto_explain.log_analyze = on;
SET auto_explain.log_timing = off;
SET auto_explain.log_format = json;
SET client_min_messages = log
"""


class Plans:
    """What PostgreSQL did for each query, those of the triggers among them, as it tells it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.told: list[str] = []
        connection = session.connection().connection.driver_connection
        assert isinstance(connection, psycopg.Connection)
        connection.add_notice_handler(self._hear)

    def _hear(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.message_primary and "plan:" in notice.message_primary:
            self.told.append(notice.message_primary)

    def of_triggers(self) -> Iterator[list[dict[str, Any]]]:
        """The nodes of each query that reads what a statement changed."""
        for each in self.told:
            nodes = list(_nodes(json.loads(each.partition("plan:")[2])["Plan"]))
            if any(node["Node Type"] == CHANGED for node in nodes):
                yield nodes


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for each in plan.get("Plans", []):
        yield from _nodes(each)


@pytest.fixture
def plans(db: Session) -> Generator[Plans]:
    """The plans of this database transaction's statements."""
    plans = Plans(db)
    for statement in EXPLAINED.split(";"):
        db.execute(text(statement))
    yield plans
    for name in ("log_min_duration", "log_nested_statements", "log_analyze", "log_format"):
        db.execute(text(f"RESET auto_explain.{name}"))
    db.execute(text("RESET client_min_messages"))


def looked_at(node: dict[str, Any]) -> float:
    """How many rows a node had in its hands, those among them that it did not give on."""
    removed = (
        node.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Join Filter", "Index Recheck")
    )
    rows: float = node["Actual Loops"] * (node["Actual Rows"] + sum(removed))
    return rows


def _everything(session: Session, people: list[uuid.UUID]) -> None:
    """Statements that fire every trigger with rows of its own, for these users at once."""
    execute(session, [grant(who, 5) for who in people])
    execute(session, [spend(who, 1, metadata={"n": 1}) for who in people])
    holds = execute(session, [open_hold(who, 2) for who in people])
    execute(session, [capture(hold.user_id, hold.seq, 1) for hold in holds])
    for seq in (1, 2, 3):
        execute(session, [reverse(who, seq, 1) for who in people])
    session.execute(
        text("UPDATE users SET first_name = 'x' WHERE user_id = ANY (:ids)"), {"ids": people}
    )


def test_a_large_statement_after_a_small_one_costs_as_many_looks_as_rows(
    db: Session, plans: Plans
) -> None:
    """Plans kept from one user's statements read no row of many users' again and again."""
    first, *others = [make_user(db).user_id for _ in range(PEOPLE + 1)]
    _everything(db, [first])
    plans.told.clear()
    _everything(db, others)
    queries = list(plans.of_triggers())
    assert len(queries) >= 15
    # Where statistics know of no rows, any index that begins with the user is as good as another.
    entries = db.scalar(select(func.count()).where(CreditEntry.user_id.in_(others)))
    assert entries
    assert max(looked_at(node) for nodes in queries for node in nodes) <= entries
    scanned = {
        node["Relation Name"]
        for nodes in queries
        for node in nodes
        if node["Node Type"] == "Seq Scan"
    }
    assert scanned <= {"notice_endpoints"}  # a row an endpoint, and none of a user
