"""The contestants do the same work: they leave the same rows, and books that are off are found."""

import datetime as dt
import uuid
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from benchmarks import seed
from benchmarks.books import BooksDisagree, BooksOf, verify_everybody
from benchmarks.calls.ledger import command_of
from benchmarks.contestants.base import Database, Load, Spread
from benchmarks.contestants.pgbench import Pgbench
from benchmarks.contestants.scripts import SAME_ROWS
from benchmarks.server import connect
from benchmarks.workload import LOT, Operation
from src.common.credits import ledger
from src.common.database import dispose_db, run_in_database_transaction
from src.common.models.base import Base
from src.local_postgres import ConnectionParameters
from tests.fixtures.databases import Server

OPERATIONS = 30
PGBENCHS, OURS = 0, LOT - 1
"""The numbers of two users with the same history."""
CHANCE = {"user_id", "idempotency_key", "request_digest", "actor", "entry_hash"}
"""Columns in which two users' rows may differ."""
Row = dict[str, Any]


def rows_of(connection: psycopg.Connection, user_id: uuid.UUID) -> dict[str, list[Row]]:
    """Every row of every ledger table that names this user, in order; empty tables too."""
    found: dict[str, list[Row]] = {}
    with connection.cursor(row_factory=dict_row) as cursor:
        for table in Base.metadata.sorted_tables:
            if "user_id" in table.columns and "seq" in table.columns:
                keys = [column.name for column in table.primary_key]
                statement = sql.SQL("SELECT * FROM {} WHERE user_id = %s ORDER BY {}").format(
                    sql.Identifier(table.name), sql.SQL(", ").join(map(sql.Identifier, keys))
                )
                found[table.name] = cursor.execute(statement, [user_id]).fetchall()
    return found


def meaning_of(tables: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """The rows without what is drawn or read from a clock; of times stays that there is one."""
    return {
        table: [
            {
                column: "a time" if isinstance(value, dt.datetime) else value
                for column, value in row.items()
                if column not in CHANCE
            }
            for row in rows
        ]
        for table, rows in tables.items()
    }


def repeat_with_the_ledger(user_id: uuid.UUID, entries: list[Row]) -> None:
    """Ask our operations for what these entries say was done."""
    for entry in entries:
        operation = Operation(user_id, -entry["amount"], entry["idempotency_key"])
        command = command_of(operation)
        run_in_database_transaction(partial(ledger.execute, commands=[command]))


def test_pgbench_leaves_the_rows_that_our_operations_leave(
    server: Server, fresh_database: ConnectionParameters
) -> None:
    """Same tables, same rows, column by column; otherwise the ratio compares nothing.

    Thirty operations: grants, spends from one lot, spends from two. Every trigger is on for both.
    """
    seed.build_ledger(fresh_database, LOT)
    ids = seed.user_ids(LOT)
    load = Load(Spread.HOT, user_count=LOT, callers=1, seconds=1, first_number=PGBENCHS)
    pgbench = Pgbench(
        "same-rows",
        Database.LEDGER,
        SAME_ROWS,
        server.bin_dir / "pgbench",
        fresh_database,
    )
    with connect(fresh_database) as admin:
        seeded = len(rows_of(admin, ids[PGBENCHS])["credit_entries"])
        pgbench.repeat(load, OPERATIONS)
        theirs = rows_of(admin, ids[PGBENCHS])
        repeat_with_the_ledger(ids[OURS], theirs["credit_entries"][seeded:])
        ours = rows_of(admin, ids[OURS])
        balances = admin.execute(
            "SELECT credits_balance, credits_version FROM users WHERE user_id = ANY (%s)",
            [[ids[PGBENCHS], ids[OURS]]],
        ).fetchall()
    dispose_db()
    done = theirs["credit_entries"][seeded:]
    assert len(done) == OPERATIONS
    assert {entry["kind"] for entry in done} == {"grant", "spend"}
    assert len(theirs["credit_postings"]) > len(theirs["credit_entries"])  # some drew on two lots
    assert meaning_of(ours) == meaning_of(theirs)
    assert balances[0] == balances[1]
    assert verify_everybody() == LOT


@pytest.mark.parametrize("history", [0, 3])
def test_what_is_seeded_in_bulk_is_what_the_rules_could_have_written(
    fresh_database: ConnectionParameters, history: int
) -> None:
    """`verify` finds nothing, and every user has three open lots."""
    seed.build_ledger(fresh_database, 100, history=history)

    assert verify_everybody() == 100
    with connect(fresh_database) as admin:
        lots = admin.execute(
            "SELECT DISTINCT count(*) FROM credit_lots WHERE is_open GROUP BY user_id"
        ).fetchall()
        entries = admin.execute("SELECT count(*) FROM credit_entries").fetchone()
    assert lots == [(3,)]
    assert entries == (100 * (4 + history),)


@pytest.mark.parametrize(
    "falsify",
    [
        "UPDATE users SET credits_balance = credits_balance + 1",
        "UPDATE users SET credits_version = credits_version + 1",
        "UPDATE credit_entries SET amount = amount + 1 WHERE seq = 1",
        "UPDATE credit_lots SET remaining = remaining - 1 WHERE seq = 1",
        "DELETE FROM credit_postings WHERE seq = 3",
    ],
)
def test_a_user_whose_balance_entries_and_lots_differ_gets_no_figures(
    fresh_database: ConnectionParameters, falsify: str
) -> None:
    """Each sum of a single user's books, being off alone, is found, even without triggers."""
    seed.build_ledger(fresh_database, 1)
    with connect(fresh_database) as admin:
        admin.execute("SET session_replication_role = replica")  # no trigger of this session fires
        admin.execute(falsify.encode())
        books = BooksOf(Database.LEDGER, admin).read()

    assert len(set(books.credits)) > 1 or len(set(books.entries)) > 1
    with pytest.raises(BooksDisagree, match="verify found"):
        verify_everybody()
    dispose_db()
