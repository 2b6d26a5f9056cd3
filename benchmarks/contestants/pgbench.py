"""The same statements from PostgreSQL's own load generator: what the database itself can do.

The columns come from the models, so that pgbench reads what the ORM does; a test compares all
statements with those the ORM sends. What differs is said in docs/benchmarks.md.
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
_LOCK = (
    f"SELECT {_COLUMNS} FROM users"  # noqa: S608  our own column names
    f" WHERE users.user_id = {SQL_USER_ID.format(number=':number')} FOR UPDATE"
)
_UPDATE = (
    "UPDATE users SET credits_balance = :balance, updated_at = now()"
    " WHERE users.user_id = :user_user_id RETURNING users.updated_at"
)
_INSERT = (
    "INSERT INTO transactions (transaction_id, user_id, stripe_session_id, payment_intent_id,"  # noqa: S608  our own numbers
    " invoice_id, amount_paid_cents, currency, livemode, credits_added, refunded_cents,"
    " disputed_cents) VALUES (gen_random_uuid(), :user_user_id, 'cs_' || gen_random_uuid(), NULL,"
    f" NULL, {AMOUNT_PAID_CENTS}, 'usd', NULL, {CREDITS}, 0, 0) RETURNING transactions.created_at"
)
STATEMENTS = ("BEGIN", _LOCK, _UPDATE, _INSERT, "COMMIT")


def script() -> str:
    """Return pgbench's script: draw a user, lock and read, add, write, commit."""
    lines = [
        r"\set number random(0, :numbers_drawn - 1)",
        "BEGIN;",
        rf"{_LOCK} \gset user_",
        rf"\set balance :user_credits_balance + {CREDITS}",
        f"{_UPDATE};",
        f"{_INSERT};",
        "COMMIT;",
    ]
    return "\n".join(lines) + "\n"


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
            report = self._execute(load, Path(folder))
            cpu_used = _cpu_seconds() - cpu_before
            latencies = _latencies(Path(folder))
        processed, rate = _PROCESSED.search(report), _RATE.search(report)
        if not (processed and rate and latencies):
            raise ContestantFailed(f"pgbench's report was not understood:\n{report}")
        acknowledged = int(processed[1])
        return Outcome(acknowledged, latencies, acknowledged / float(rate[1]), cpu_used)

    def _execute(self, load: Load, folder: Path) -> str:
        (folder / "script.sql").write_text(script(), encoding="utf-8")
        command: list[str | Path] = [
            self._program,
            *("--no-vacuum", "--protocol=prepared", "--jobs=1", "--log"),
            f"--log-prefix={folder / 'log'}",
            f"--file={folder / 'script.sql'}",
            f"--client={load.clients}",
            f"--time={load.seconds}",
            f"--define=numbers_drawn={load.numbers_drawn}",
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
