"""What reading costs: no page of a long journal looks at more rows than it shows."""

from collections.abc import Callable, Generator
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.orm import Session

from src.common.credits import queries
from src.common.database import SessionLocal
from src.common.models.user import User
from src.local_postgres import ConnectionParameters

LIMIT = 10
FILL = """
SET LOCAL session_replication_role = replica;
INSERT INTO users (email, password_hash, credits_balance, credits_version)
    SELECT n || '@example.com', 'x', 5000, 5000 FROM generate_series(1, 10) AS n;
INSERT INTO credit_entries (user_id, seq, kind, amount, balance_after, result_balance,
                            idempotency_key, request_digest, actor, effective_at)
    SELECT user_id, n, 'grant', 1, n, n, n, sha256('x'), 'system:x',
           now() + n * interval '1 second'
    FROM users, generate_series(1, 5000) AS n;
INSERT INTO credit_lots (user_id, seq, source, priority, granted, remaining, last_seq, is_open)
    SELECT user_id, seq, 'promo', 10, 1, 1, seq, true FROM credit_entries;
INSERT INTO credit_postings SELECT user_id, seq, seq, 1, 1 FROM credit_entries;
SET LOCAL session_replication_role = origin;
ANALYZE users, credit_entries, credit_lots, credit_postings
"""


@pytest.fixture
def long_journals(fresh_database: ConnectionParameters) -> Generator[Session]:
    """A session on a database whose users all have long journals."""
    assert fresh_database
    with SessionLocal() as session:
        for statement in FILL.split(";"):
            session.execute(text(statement))
        yield session


def rows_looked_at(session: Session, ask: Callable[[], object]) -> int:
    """How many rows of tables all statements of `ask` fetched or threw away."""
    sent: list[tuple[str, Any]] = []

    def keep(_connection: object, _cursor: object, statement: str, *rest: Any) -> None:
        sent.append((statement, rest[0]))

    connection = session.connection()
    event.listen(connection, "before_cursor_execute", keep)
    ask()
    event.remove(connection, "before_cursor_execute", keep)
    total = 0
    for statement, parameters in sent:
        explained = connection.exec_driver_sql(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters
        ).scalar_one()
        total += sum(map(_scanned, _nodes(explained[0]["Plan"])))
    assert sent
    return total


def _nodes(plan: dict[str, Any]) -> Generator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


def _scanned(node: dict[str, Any]) -> int:
    if "Relation Name" not in node:
        return 0
    thrown_away = node.get("Rows Removed by Filter", 0)
    return int((node["Actual Rows"] + thrown_away) * node["Actual Loops"])


@pytest.mark.parametrize("cursor", [None, "4000", "20"])
def test_a_page_of_history_looks_at_the_rows_it_shows(
    long_journals: Session, cursor: str | None
) -> None:
    """At any depth: one index entry, one entry and one line a row, and one to see what follows."""
    user_id = long_journals.scalars(select(User.user_id).limit(1)).one()
    looked_at = rows_looked_at(
        long_journals,
        lambda: queries.history(long_journals, user_id, cursor=cursor, limit=LIMIT),
    )
    assert looked_at <= (LIMIT + 1) + 2 * LIMIT
