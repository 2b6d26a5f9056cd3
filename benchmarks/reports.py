"""How long reports and the doctor take over a million entries, in how much memory.

Run it by `uv run python -m benchmarks.reports`. It exits with 1 if a figure is beyond its bound.

Each report is asked for in a process of its own, so that its peak memory is its own. `liability` is
compared with a bare `SELECT sum(amount)` over the same entries, both warm, in turns. `--only` asks
for one of them, such as `journal` or `doctor`.
"""

import argparse
import datetime as dt
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text

from benchmarks import doctor
from benchmarks.output import show, tell
from benchmarks.seed import add_users
from benchmarks.server import SERVER_SETTINGS, connect, refuse_volatile, temporary_server
from src.common.database import SessionLocal, dispose_db
from src.common.postgres.migrations import upgrade_to_head
from src.common.reports.catalogue import ReportName, Wanted, write_report
from src.common.reports.formats import Format
from src.common.reports.periods import By
from src.common.reports.snapshots import begin_report

if TYPE_CHECKING:
    from collections.abc import Callable

    from src.local_postgres import ConnectionParameters

ENTRIES_A_USER = 50
MB = 2**20
SECONDS_MAX = 10
MEMORY_MAX_MB = 200
RATIO_MAX = 5

_INSTANTS = (
    "UPDATE credit_entries SET effective_at = now() - interval '401 days' + seq * interval '8 days'"
)
# Of every user's three lots the first two were bought: nearly all entries touch what was paid for.
_PURCHASES = """
    INSERT INTO transactions (user_id, stripe_session_id, amount_paid_cents, credits_added,
                              livemode, created_at)
    SELECT user_id, 'cs_' || user_id || seq, 999, granted, true, effective_at
    FROM credit_lots JOIN credit_entries USING (user_id, seq) WHERE seq < %(last)s
"""
_LOTS = """
    UPDATE credit_lots SET source = 'purchase', transaction_id = bought.transaction_id
    FROM transactions AS bought
    WHERE stripe_session_id = 'cs_' || credit_lots.user_id || seq
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A report as it is asked for here, with everything in it that there is."""

    name: ReportName
    by: By | None = None
    is_past: bool = False

    def __str__(self) -> str:
        by = "" if self.by is None else f", by {self.by}"
        return f"{self.name}{by}{', of the past' if self.is_past else ''}"

    @property
    def wanted(self) -> Wanted:
        """All of it, from the first entry on."""
        now = dt.datetime.now(dt.UTC)
        return Wanted(
            name=self.name,
            since=None if self.name in _WITHOUT_BEGINNING else now - dt.timedelta(days=500),
            until=now - dt.timedelta(days=100) if self.is_past else None,
            by=self.by,
        )


_WITHOUT_BEGINNING = {ReportName.LIABILITY, ReportName.USERS, ReportName.JOURNAL}
CASES = (
    Case(name=ReportName.MOVEMENTS, by=By.MONTH),
    Case(name=ReportName.MOVEMENTS, by=By.DAY),
    Case(name=ReportName.LIABILITY),
    Case(name=ReportName.LIABILITY, is_past=True),
    Case(name=ReportName.REVENUE, by=By.MONTH),
    Case(name=ReportName.SALES, by=By.MONTH),
    Case(name=ReportName.PAYMENTS),
    Case(name=ReportName.USERS),
    Case(name=ReportName.JOURNAL, by=By.ENTRY),
    Case(name=ReportName.JOURNAL, by=By.DAY),
)


def main() -> None:
    """Build the ledger, ask, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=[*ReportName, "doctor"])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    refuse_volatile(options.folder)
    with temporary_server(options.folder, SERVER_SETTINGS, tell) as server:
        upgrade_to_head()
        fill(server.connection, options.entries // ENTRIES_A_USER)
        is_within = True
        if options.only != "doctor":
            is_within = _measure([case for case in CASES if options.only in {None, case.name}])
        if options.only in {None, ReportName.LIABILITY}:
            is_within = _compare(options.repeats) and is_within
        dispose_db()
        if options.only in {None, "doctor"}:
            is_within = _examine(server.connection, options.entries) and is_within
    sys.exit(0 if is_within else 1)


def _measure(cases: list[Case]) -> bool:
    """Print the table; whether all of it is within the bounds."""
    is_within = True
    show(f"| report | seconds (≤ {SECONDS_MAX}) | peak memory, MB (≤ {MEMORY_MAX_MB}) | within |")
    show("|---|---|---|---|")
    for case in cases:
        seconds, peak = _in_a_process(case)
        fits = seconds <= SECONDS_MAX and peak <= MEMORY_MAX_MB * MB
        is_within = is_within and fits
        show(f"| {case} | {seconds:.2f} | {peak / MB:.0f} | {'yes' if fits else 'NO'} |")
    return is_within


def _compare(repeats: int) -> bool:
    ratio = _ratio(repeats)
    show(f"\nliability ÷ bare sum: {ratio:.2f} (≤ {RATIO_MAX})")
    return ratio <= RATIO_MAX


def _examine(connection: "ConnectionParameters", entries: int) -> bool:
    """Whether the doctor finds a healthy system healthy, soon, and without scans."""
    doctor.make_healthy(connection)
    found = doctor.examine(connection)
    rows_max = int(entries * doctor.ROWS_SHARE_MAX)
    show(
        f"\ndoctor, from its start to its end: {found.seconds:.2f} s (≤ {doctor.SECONDS_MAX}); "
        f"sequential scans of the ledger's tables: {found.scans} (0); "
        f"rows of the journal read: {found.rows_read:,} (≤ {rows_max:,}); "
        f"checks that fail or are unknown: {', '.join(found.troubles) or 'none'}"
    )
    return (
        found.seconds <= doctor.SECONDS_MAX
        and found.scans == 0
        and found.rows_read <= rows_max
        and not found.troubles
    )


def fill(connection: "ConnectionParameters", users: int) -> None:
    """Add users with purchases, and entries over 400 days."""
    with connect(connection) as admin:
        add_users(admin, first=0, count=users, history=ENTRIES_A_USER - 4)
        with admin.transaction():
            admin.execute("SET LOCAL session_replication_role = replica")
            admin.execute(_INSTANTS)
            admin.execute(_PURCHASES, {"last": ENTRIES_A_USER - 1})
            admin.execute(_LOTS)
        admin.execute("VACUUM FULL credit_entries")  # as if it had been written in this order
        admin.execute("VACUUM ANALYZE")


def _in_a_process(case: Case) -> tuple[float, int]:
    """Seconds, and the peak of the process's memory, in bytes."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_ask, (case,))


def _ask(case: Case) -> tuple[float, int]:
    began = time.perf_counter()
    _write(case)
    return time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _write(case: Case) -> None:
    format_ = Format.BEANCOUNT if case.name is ReportName.JOURNAL else Format.CSV
    with tempfile.TemporaryFile() as file, SessionLocal.begin() as session:
        begin_report(session)
        write_report(session, case.wanted, format_, file)


def _sum() -> None:
    with SessionLocal.begin() as session:
        session.execute(text("SELECT sum(amount) FROM credit_entries")).one()


def _ratio(repeats: int) -> float:
    """Of the medians; the first of each warms up."""
    taken: dict[str, list[float]] = {"liability": [], "sum": []}
    works: dict[str, Callable[[], None]] = {
        "liability": lambda: _write(Case(name=ReportName.LIABILITY)),
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
