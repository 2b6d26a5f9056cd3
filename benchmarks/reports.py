"""How long reports over a million entries take, in how much memory.

Run it by `uv run python -m benchmarks.reports`.

Each is asked for in a process of its own, so that its peak memory is its own. `liability` is
compared with a bare `SELECT sum(amount)` over the same entries, both warm, in turns.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from sqlalchemy import text

from benchmarks.seed import add_users
from benchmarks.server import SERVER_SETTINGS, connect
from src.common.database import SessionLocal, dispose_db
from src.common.postgres.migrations import upgrade_to_head
from src.common.reports.catalogue import ReportName, Wanted, write_report
from src.common.reports.formats import Format
from src.common.reports.snapshots import begin_report
from src.local_postgres import ConnectionParameters, free_port, running_server

if TYPE_CHECKING:
    from collections.abc import Callable

ENTRIES_A_USER = 50
MB = 2**20

# Of every user's three lots two were bought, and the entries lie eight days apart.
_PURCHASES = """
    INSERT INTO transactions (user_id, stripe_session_id, amount_paid_cents, credits_added,
                              created_at)
    SELECT user_id, 'cs_' || user_id || seq, 999, granted, now() - interval '1 day'
    FROM credit_lots WHERE seq <> 1
"""
_LOTS = """
    UPDATE credit_lots SET source = 'purchase', transaction_id = bought.transaction_id
    FROM transactions AS bought
    WHERE stripe_session_id = 'cs_' || credit_lots.user_id || seq AND seq <> 1
"""
_INSTANTS = (
    "UPDATE credit_entries SET effective_at = now() - interval '400 days' + seq * interval '8 days'"
)


def main() -> None:
    """Build the ledger, ask, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="flashslides-reports-") as folder,
        running_server(Path(folder) / "data", port=free_port(), settings=SERVER_SETTINGS) as server,
    ):
        _configure(server.connection)
        upgrade_to_head()
        _fill(server.connection, options.entries // ENTRIES_A_USER)
        print("| report | seconds | peak memory, MB |\n|---|---|---|")
        for name in ReportName:
            seconds, peak = _in_a_process(name)
            print(f"| {name} | {seconds:.2f} | {peak / MB:.0f} |")
        print(f"\nliability ÷ bare sum: {_ratio(options.repeats):.2f}")
        dispose_db()


def _configure(connection: ConnectionParameters) -> None:
    os.environ |= {
        "ENV": "local",
        "DATABASE_HOST": connection.host,
        "DATABASE_PORT": str(connection.port),
        "DATABASE_NAME": connection.database,
        "DATABASE_USER": connection.user,
        "DATABASE_PASSWORD": connection.password,
    }


def _fill(connection: ConnectionParameters, users: int) -> None:
    with connect(connection) as admin:
        add_users(admin, first=0, count=users, history=ENTRIES_A_USER - 4)
        with admin.transaction():
            admin.execute("SET LOCAL session_replication_role = replica")
            for statement in (_PURCHASES, _LOTS, _INSTANTS):
                admin.execute(statement)
        _vacuum(admin)


def _vacuum(admin: psycopg.Connection) -> None:
    admin.execute("VACUUM ANALYZE")


def _in_a_process(name: ReportName) -> tuple[float, int]:
    """Seconds, and the peak of the process's memory, in bytes."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_ask, (name,))


def _ask(name: ReportName) -> tuple[float, int]:
    began = time.perf_counter()
    _write(name)
    return time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _write(name: ReportName) -> None:
    format_ = Format.BEANCOUNT if name is ReportName.JOURNAL else Format.CSV
    with tempfile.TemporaryFile() as file, SessionLocal.begin() as session:
        begin_report(session)
        write_report(session, Wanted(name=name), format_, file)


def _sum() -> None:
    with SessionLocal.begin() as session:
        session.execute(text("SELECT sum(amount) FROM credit_entries")).one()


def _ratio(repeats: int) -> float:
    """Of the medians; the first of each warms up."""
    taken: dict[str, list[float]] = {"liability": [], "sum": []}
    works: dict[str, Callable[[], None]] = {
        "liability": lambda: _write(ReportName.LIABILITY),
        "sum": _sum,
    }
    for _ in range(repeats + 1):
        for what, work in works.items():
            began = time.perf_counter()
            work()
            taken[what].append(time.perf_counter() - began)
    liability, bare = (statistics.median(taken[what][1:]) for what in ("liability", "sum"))
    return liability / bare


if __name__ == "__main__":
    main()
