"""How long `flashslides doctor` takes over a healthy system, and what it reads of the ledger.

`benchmarks.reports` runs it over its million entries.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.server import connect

if TYPE_CHECKING:
    from src.local_postgres import ConnectionParameters

SECONDS_MAX = 3
ROWS_SHARE_MAX = 0.01
"""Of the journal's rows, read by whatever index: one that is read whole is a scan as well."""
JOURNAL = ("credit_entries", "credit_postings")
LEDGER = (*JOURNAL, "credit_lots", "credit_holds", "credit_debts")

# A worker at work that has verified everybody, so that nothing is to be said.
_HEALTHY = """
    INSERT INTO worker_heartbeats (worker_id, beat_at)
    VALUES (gen_random_uuid(), now() + interval '1 hour');
    INSERT INTO credit_verifications (last_pass_users, last_pass_differing_users,
                                      last_pass_ended_at)
    SELECT count(*), 0, now() FROM users
"""
_READ = """
    SELECT sum(seq_scan)::bigint,
           (SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes
            WHERE relname = ANY (%(journal)s))
    FROM pg_stat_user_tables WHERE relname = ANY (%(ledger)s)
"""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """One run of the command, its start included."""

    seconds: float
    statuses: Mapping[str, str]
    scans: int
    """Sequential scans of the ledger's tables."""
    rows_read: int
    """Of the journal, by its indexes. (All purchases and lots are compared: decision 0032.)"""

    @property
    def troubles(self) -> list[str]:
        """Checks that fail or could not look."""
        return [name for name, status in self.statuses.items() if status in {"fail", "unknown"}]


def make_healthy(connection: "ConnectionParameters") -> None:
    """Leave the signs of a worker that has done its work."""
    with connect(connection) as admin:
        admin.execute(_HEALTHY)


def examine(connection: "ConnectionParameters") -> Examination:
    """Run the command in a process of its own, as an operator does."""
    before = _read(connection)
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "src.cli", "doctor", "--json"],
        check=False,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - began
    found = json.loads(done.stdout)["checks"]
    scans, rows = (
        after - earlier for after, earlier in zip(_read(connection), before, strict=True)
    )
    return Examination(
        seconds=seconds,
        statuses={each["name"]: each["status"] for each in found},
        scans=scans,
        rows_read=rows,
    )


def _read(connection: "ConnectionParameters") -> tuple[int, int]:
    with connect(connection) as admin:
        names = {"journal": list(JOURNAL), "ledger": list(LEDGER)}
        [row] = admin.execute(_READ, names).fetchall()
    return int(row[0]), int(row[1])
