"""What the batch engine reads and writes goes through indexes, whatever the plan."""

import json
from collections.abc import Generator
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.sql import ClauseElement

from src.common.credits.engine.connection import HOLDERS
from src.common.credits.persistence.reading import Locking, books_statement
from src.common.credits.persistence.writing import COLUMNS, Part, write_statement
from src.common.postgres.engines import build_lanes_engine
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.postgres.drivers import open_connection

pytestmark = pytest.mark.xdist_group("credits_engine")

FILL = """
SET session_replication_role = replica;
INSERT INTO users (email, password_hash, credits_balance, credits_version)
    SELECT n || '@example.com', 'x', 5, 5 FROM generate_series(1, 10000) AS n;
INSERT INTO credit_entries (user_id, seq, kind, amount, balance_after, result_balance,
                            idempotency_key, request_digest, actor, effective_at)
    SELECT user_id, n, 'grant', 1, n, n, n, sha256('x'), 'system:x', now()
    FROM users, generate_series(1, 5) AS n;
INSERT INTO credit_lots (user_id, seq, source, priority, granted, remaining, last_seq, is_open)
    SELECT user_id, seq, 'promo', 10, 1, (seq > 2)::int, seq, seq > 2
    FROM credit_entries;
INSERT INTO credit_postings SELECT user_id, seq, seq, 1, 1 FROM credit_entries;
INSERT INTO credit_holds (user_id, seq, amount, captured, status, expires_at)
    SELECT user_id, 1, 1, 0, 'released', now() FROM users;
INSERT INTO credit_holds (user_id, seq, amount, captured, status, expires_at)
    SELECT user_id, n, 1, 0, CASE n WHEN 2 THEN 'open' ELSE 'released' END, now()
    FROM (SELECT user_id FROM users LIMIT 1), generate_series(2, 5000) AS n;
INSERT INTO credit_debts (user_id, seq, outstanding) SELECT user_id, 1, 0 FROM users;
SET session_replication_role = origin;
ANALYZE
"""


@pytest.fixture
def filled(fresh_database: ConnectionParameters) -> Generator[psycopg.Connection]:
    """Ten thousand users: 25 of them are what 256 are of a hundred thousand."""
    with open_connection(fresh_database) as connection:
        connection.execute(FILL.encode())
        yield connection


def scans(connection: psycopg.Connection, statement: ClauseElement, mode: str) -> dict[str, Any]:
    """The nodes of the plan that read tables, by table and index."""
    compiled: Any = statement.compile(dialect=dialect())  # type: ignore[no-untyped-call]
    users = connection.execute(
        "SELECT array_agg(user_id) FROM (SELECT user_id FROM users LIMIT 25)"
    )
    [user_ids] = users.fetchone() or [None]
    given = {"user_ids": "{" + ",".join(map(str, user_ids or [])) + "}", "now": None}
    arguments = [given.get(name, "{}") for name in compiled.positiontup]
    literals = ", ".join("NULL" if each is None else f"'{each}'" for each in arguments)
    connection.execute(f"SET plan_cache_mode = force_{mode}_plan".encode())
    connection.execute(f"PREPARE asked AS {compiled}".encode())
    row = connection.execute(f"EXPLAIN (FORMAT JSON) EXECUTE asked({literals})".encode()).fetchone()
    connection.execute("DEALLOCATE asked")
    assert row is not None
    nodes = list(_nodes(row[0][0]["Plan"]))
    assert nodes, json.dumps(row[0])
    return {f"{node['Relation Name']} {node['Node Type']}": node for node in nodes}


def _nodes(plan: dict[str, Any]) -> Generator[dict[str, Any]]:
    if "Relation Name" in plan and plan["Node Type"] != "ModifyTable":
        yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


def test_no_table_is_read_from_its_beginning(filled: psycopg.Connection) -> None:
    """Books are read and written through indexes: however rows are locked, generic plans too."""
    whole_write = write_statement(frozenset((part, COLUMNS[part], ()) for part in Part))
    for mode in ("custom", "generic"):
        reading = [
            books_statement(locking, with_originals=with_originals)
            for locking in Locking
            for with_originals in (False, True)
        ]
        for statement in (*reading, whole_write):
            found = scans(filled, statement, mode)
            scanned = {name for name in found if name.endswith("Seq Scan")}
            assert scanned <= {"credit_ledgers Seq Scan"}  # which has one row
            assert {name.split()[0] for name in found} >= {"users", "credit_lots", "credit_holds"}


def test_nothing_is_read_whole_where_that_is_discouraged(filled: psycopg.Connection) -> None:
    """Before PostgreSQL 18 such a plan looks so dear that it is compiled, at every execution."""
    filled.execute("SET enable_seqscan = off")
    for statement in map(books_statement, Locking):
        found = scans(filled, statement, "generic")
        assert [name for name, node in found.items() if node["Disabled"]] == []
        assert "credit_ledgers Seq Scan" not in found


async def test_finished_holds_are_passed_by(
    filled: psycopg.Connection,
) -> None:
    """Somebody with thousands of them is read as fast as anybody, by the lanes' plans too."""
    assert filled
    compiled: Any = books_statement(Locking.NONE).compile(dialect=dialect())  # type: ignore[no-untyped-call]
    connections = build_lanes_engine(get_settings())
    pooled = await connections.raw_connection()
    lane: Any = pooled.driver_connection
    [[who]] = await lane.fetch("SELECT user_id FROM credit_holds WHERE seq = 5000")
    # Prepared: the lanes have one plan for all. One made for this call alone knows that no hold is
    # asked for, and may then look anywhere, for instance through all that are open.
    await lane.execute(f"PREPARE asked AS {compiled}")
    given = {"user_ids": f"'{{{who}}}'", "now": "NULL"}
    literals = ", ".join(given.get(name, "'{}'") for name in compiled.positiontup)
    rows = await lane.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE asked({literals})")
    pooled.close()
    await connections.dispose()
    nodes = list(_nodes(_parsed(rows[0][0])[0]["Plan"]))
    of_holds = [node for node in nodes if node["Relation Name"] == "credit_holds"]
    assert sum(node["Actual Rows"] for node in of_holds) == 1
    assert sum(node.get("Rows Removed by Filter", 0) for node in of_holds) == 0


async def test_looking_who_is_locked_reads_nobody_else(filled: psycopg.Connection) -> None:
    """However many users there are, their rows are found by the index."""
    assert filled
    connections = build_lanes_engine(get_settings())
    pooled = await connections.raw_connection()
    lane: Any = pooled.driver_connection
    user_ids = [row[0] for row in await lane.fetch("SELECT user_id FROM users LIMIT 25")]
    rows = await lane.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) {HOLDERS}", user_ids)
    pooled.close()
    await connections.dispose()
    nodes = list(_nodes(_parsed(rows[0][0])[0]["Plan"]))
    assert [node["Node Type"] for node in nodes] == ["Index Scan", "Index Scan"]


def _parsed(plan: Any) -> Any:
    return json.loads(plan) if isinstance(plan, str) else plan


async def test_lanes_plan_once_and_without_bitmaps(fresh_database: ConnectionParameters) -> None:
    """A bitmap visits whatever is dead in the index, as a busy user's closed lots are, each time.

    A scan of the index notes it, and the next one passes it by.
    """
    assert fresh_database
    connections = build_lanes_engine(get_settings())
    async with connections.connect() as lane:
        for name, value in (
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_bitmapscan", "off"),
        ):
            assert (await lane.execute(text(f"SHOW {name}"))).scalar_one() == value
    await connections.dispose()
