"""The same rows from PostgreSQL's own load generator: what the database itself can do.

The statements that write what an operation of the document's pattern leaves (the purchase, its
ledger entry, lot and posting, the user's balance), and the one read that takes; a test compares the
rows. What differs is said in docs/benchmarks.md.
"""

import os
import re
import resource
import subprocess
import tempfile
from pathlib import Path

from benchmarks.contestants.base import (
    AMOUNT_PAID_CENTS,
    CREDITS,
    ContestantFailed,
    Load,
    Outcome,
)
from benchmarks.seed import SQL_USER_ID
from src.common.models.user import User
from src.common.settings import Settings
from src.local_postgres import ConnectionParameters

_PATIENCE_SECONDS = 60
_PROCESSED = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)
_RATE = re.compile(r"^tps = ([0-9.]+) \(without initial connection time\)", re.MULTILINE)
_LOG_FIELD_MICROSECONDS = 2

_COLUMNS = ", ".join(f"users.{column.name}" for column in User.__table__.columns)
# pgbench takes a colon before a name for a variable even between quotes: 'system:' || 'orm'.
_SCRIPT = rf"""
\set number random(:first_number, :first_number + :numbers_drawn - 1)
BEGIN;
SELECT {_COLUMNS}
  FROM users WHERE users.user_id = {SQL_USER_ID.format(number=":number")} FOR UPDATE \gset user_
\set balance :user_credits_balance + {CREDITS}
\set seq :user_credits_version + 1
INSERT INTO transactions (transaction_id, user_id, stripe_session_id, payment_intent_id, invoice_id,
  amount_paid_cents, currency, livemode, credits_added, refunded_cents, disputed_cents)
  VALUES (gen_random_uuid(), :user_user_id, 'cs_' || gen_random_uuid(), NULL, NULL,
  {AMOUNT_PAID_CENTS}, 'usd', NULL, {CREDITS}, 0, 0)
  RETURNING transaction_id, stripe_session_id, created_at, clock_timestamp() AS booked_at \gset new_
WITH entries AS (INSERT INTO credit_entries (user_id, seq, kind, amount, balance_after,
  result_balance, captured, related_seq, hold_expires_at, idempotency_key, request_digest,
  reference, actor, effective_at, created_at)
  VALUES (:user_user_id, :seq, 'grant', {CREDITS}, :balance, :balance, NULL, NULL, NULL,
  '~purchase:' || :new_stripe_session_id, sha256(convert_to(:new_stripe_session_id, 'UTF8')), NULL,
  'system:' || 'orm', :new_booked_at, :new_booked_at)),
lots AS (INSERT INTO credit_lots (user_id, seq, source, transaction_id, priority, granted,
  expires_at, remaining, last_seq, is_open)
  VALUES (:user_user_id, :seq, 'purchase', :new_transaction_id, 100, {CREDITS}, NULL, {CREDITS},
  :seq, true)),
postings AS (INSERT INTO credit_postings (user_id, seq, lot_seq, amount, remaining_after)
  VALUES (:user_user_id, :seq, :seq, {CREDITS}, {CREDITS}))
UPDATE users SET credits_balance = :balance, credits_version = :seq, updated_at = now()
  WHERE users.user_id = :user_user_id;
COMMIT;
"""  # noqa: S608  our own column names and numbers


def script() -> str:
    """Return pgbench's script: draw a user, lock and read, write purchase, ledger and balance."""
    return _SCRIPT.removeprefix("\n")


class Pgbench:
    """PostgreSQL's own client, one thread, prepared statements."""

    name = "pgbench"

    def __init__(self, program: Path, connection: ConnectionParameters, settings: Settings) -> None:
        self._program = program
        self._environment = _environment(connection, settings)

    def run(self, load: Load) -> Outcome:
        """Run pgbench once."""
        with tempfile.TemporaryDirectory(prefix="flashslides-pgbench-") as folder:
            cpu_before = _cpu_seconds()
            report = self._execute(load, Path(folder), f"--time={load.seconds}")
            cpu_used = _cpu_seconds() - cpu_before
            latencies = _latencies(Path(folder))
        processed, rate = _PROCESSED.search(report), _RATE.search(report)
        if not (processed and rate and latencies):
            raise ContestantFailed(f"pgbench's report was not understood:\n{report}")
        acknowledged = int(processed[1])
        return Outcome(acknowledged, latencies, acknowledged / float(rate[1]), cpu_used)

    def repeat(self, load: Load, operations: int) -> None:
        """Let each client do so many operations, however long they take; nothing is measured."""
        with tempfile.TemporaryDirectory(prefix="flashslides-pgbench-") as folder:
            self._execute(load, Path(folder), f"--transactions={operations}")

    def _execute(self, load: Load, folder: Path, until: str) -> str:
        (folder / "script.sql").write_text(script(), encoding="utf-8")
        command: list[str | Path] = [
            self._program,
            *("--no-vacuum", "--protocol=prepared", "--jobs=1", "--log"),
            f"--log-prefix={folder / 'log'}",
            f"--file={folder / 'script.sql'}",
            f"--client={load.clients}",
            f"--define=first_number={load.first_number}",
            f"--define=numbers_drawn={load.numbers_drawn}",
            until,
        ]
        try:
            result = subprocess.run(
                command,
                env=self._environment,
                capture_output=True,
                text=True,
                check=True,
                timeout=load.seconds + _PATIENCE_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise ContestantFailed("pgbench did not end in time") from error
        except subprocess.CalledProcessError as error:
            raise ContestantFailed(f"pgbench failed: {error.stderr.strip()}") from error
        return result.stdout


def _environment(connection: ConnectionParameters, settings: Settings) -> dict[str, str]:
    """Return how libpq connects, with the time-outs our engines set on every connection."""
    timeouts = {
        "lock_timeout": settings.database_lock_timeout_ms,
        "statement_timeout": settings.database_statement_timeout_ms,
        "idle_in_transaction_session_timeout": (
            settings.database_idle_in_transaction_session_timeout_ms
        ),
    }
    return {name: value for name, value in os.environ.items() if name[:2] != "PG"} | {
        "PGHOST": connection.host,
        "PGPORT": str(connection.port),
        "PGUSER": connection.user,
        "PGPASSWORD": connection.password,
        "PGDATABASE": connection.database,
        "PGAPPNAME": settings.database_application_name,
        "PGOPTIONS": " ".join(f"-c {name}={value}" for name, value in timeouts.items()),
        "LC_ALL": "C",
    }


def _latencies(folder: Path) -> list[float]:
    """Return the milliseconds of each transaction, from pgbench's log."""
    return [
        int(line.split()[_LOG_FIELD_MICROSECONDS]) / 1000
        for log in folder.glob("log.*")
        for line in log.read_text(encoding="ascii").splitlines()
    ]


def _cpu_seconds() -> float:
    """Return what our ended children used; the server is not our child."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
