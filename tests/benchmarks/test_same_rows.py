"""The contestants do the same work: they leave the same rows, and books that are off are found."""

import datetime as dt
import re
import uuid
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from benchmarks import seed
from benchmarks.books import BooksDisagree, check_each_user
from benchmarks.contestants.base import Load, Spread
from benchmarks.contestants.document_pattern import update_credits
from benchmarks.contestants.pgbench import Pgbench
from benchmarks.server import connect
from src.common.async_database import dispose_async_db
from src.common.models.base import Base
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.fixtures.databases import Server

OPERATIONS = 3
PGBENCHS, DOCUMENTS = 0, 1
"""The users' numbers."""
SESSION = re.compile(r"cs_[0-9a-f-]{36}")
Row = dict[str, Any]


def rows_of(connection: psycopg.Connection, user_id: uuid.UUID) -> dict[str, list[Row]]:
    """Every row of every table that names this user, in the order of writing; empty tables too."""
    found: dict[str, list[Row]] = {}
    with connection.cursor(row_factory=dict_row) as cursor:
        for table in Base.metadata.sorted_tables:
            if "user_id" in table.columns:
                order = "seq" if "seq" in table.columns else "created_at"
                statement = sql.SQL("SELECT * FROM {} WHERE user_id = %s ORDER BY {}")
                names = (sql.Identifier(table.name), sql.Identifier(order))
                found[table.name] = cursor.execute(statement.format(*names), [user_id]).fetchall()
    return found


def meaning_of(tables: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """The rows with what is drawn or read from a clock replaced by what it stands for.

    An id or a session becomes the place of the purchase it belongs to, a digest its length. Of
    times it stays whether there is one, whether it is after the purchase's, and whether an entry's
    two agree.
    """
    names: dict[str, str] = {}
    for place, row in enumerate(tables["transactions"], start=1):
        assert SESSION.fullmatch(row["stripe_session_id"])
        names[str(row["transaction_id"])] = f"transaction {place}"
        names[row["stripe_session_id"]] = f"session {place}"

    def meaning(row: Row, column: str) -> object:
        value = row[column]
        match value:
            case bytes():
                return f"{len(value)} bytes"
            case dt.datetime() if column == "effective_at":
                return "created_at" if value == row["created_at"] else "another time"
            case dt.datetime() if "seq" in row:
                bought_at = tables["transactions"][int(row["seq"]) - 1]["created_at"]
                return "after the purchase" if value > bought_at else "not after the purchase"
            case dt.datetime():
                return "a time"
            case uuid.UUID() if column == "user_id":
                return "the user"
            case uuid.UUID() | str():
                text = str(value)
                for drawn, name in names.items():
                    text = text.replace(drawn, name)
                return text
            case _:
                return value

    return {
        table: [{column: meaning(row, column) for column in row} for row in rows]
        for table, rows in tables.items()
    }


def without_profile(row: Row) -> Row:
    """A user's row without what the seed makes of the user's number."""
    own = ("email", "first_name", "last_name", "stripe_customer_id", "preferences")
    return {column: value for column, value in row.items() if column not in own}


async def test_pgbench_leaves_the_rows_that_the_documents_pattern_leaves(
    server: Server, fresh_database: ConnectionParameters
) -> None:
    """Same tables, same rows, each column meaning the same; otherwise the ratio compares nothing.

    More than one operation, so that balances, versions and lots that go on are compared too. Every
    wall of the ledger is up for both.
    """
    seed.build(fresh_database, 2)
    ids = seed.user_ids(2)
    load = Load(Spread.HOT, user_count=2, clients=1, seconds=1, first_number=PGBENCHS)
    with connect(fresh_database) as admin:
        before = [rows_of(admin, user_id)["users"] for user_id in ids]

        pgbench = Pgbench(server.bin_dir / "pgbench", fresh_database, get_settings())
        pgbench.repeat(load, OPERATIONS)
        for _ in range(OPERATIONS):
            await update_credits(ids[DOCUMENTS])
        await dispose_async_db()

        ours, theirs = [rows_of(admin, user_id) for user_id in ids]
        check_each_user(admin)
    written = {table for table, rows in ours.items() if rows} - {"users"}
    assert written == {"transactions", "credit_entries", "credit_lots", "credit_postings"}
    assert all(len(ours[table]) == OPERATIONS for table in written)
    for user, [was] in zip((ours, theirs), before, strict=True):
        [now] = user["users"]
        changed = {column for column in now if now[column] != was[column]}
        assert changed == {"credits_balance", "credits_version", "updated_at"}
        user["users"] = [without_profile(now)]
    assert meaning_of(ours) == meaning_of(theirs)


@pytest.mark.parametrize(
    "falsify",
    [
        "UPDATE users SET credits_balance = credits_balance + 1",
        "UPDATE users SET credits_version = credits_version + 1",
        "UPDATE transactions SET credits_added = credits_added + 1",
        "UPDATE credit_entries SET amount = amount + 1",
        "UPDATE credit_lots SET remaining = remaining - 1",
    ],
)
async def test_a_user_whose_balance_entries_and_lots_differ_gets_no_figures(
    fresh_database: ConnectionParameters, falsify: str
) -> None:
    """Each sum of a single user's books, being off alone, is found, even where no wall stood."""
    seed.build(fresh_database, 1)
    await update_credits(seed.user_ids(1)[0])
    await dispose_async_db()
    with connect(fresh_database) as admin:
        check_each_user(admin)
        admin.execute("SET session_replication_role = replica")  # no trigger of this session fires
        admin.execute(falsify.encode())

        with pytest.raises(BooksDisagree, match="1 users"):
            check_each_user(admin)
