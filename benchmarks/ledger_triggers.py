"""What each of the ledger's triggers costs: pgbench spends with all triggers, none, all but one.

    python -m benchmarks.ledger_triggers

One database transaction a spend: an entry, a posting, the lot, the user. Every variant runs once a
repetition; what is printed is the ratio to "no triggers" of the same repetition. Switching a
trigger off is what only this program does, on a server of its own.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Table
from sqlalchemy.orm import Session

from benchmarks.figures import MedianOf, median_of, ratios
from benchmarks.output import tell
from benchmarks.server import SERVER_SETTINGS, connect, temporary_server
from src.common.credits import ledger
from src.common.credits.domain.commands import Grant
from src.common.database import dispose_db, run_in_database_transaction
from src.common.models import User
from src.common.postgres.migrations import upgrade_to_head
from src.local_postgres import ConnectionParameters, RunningServer

USERS = 1_000
"""As many as the script below chooses from."""
TRIGGERS = {
    "users_balanced": "users",
    "credit_entries_balanced": "credit_entries",
    "credit_entries_told": "credit_entries",
    "credit_postings_balanced": "credit_postings",
    "credit_lots_balanced": "credit_lots",
    "credit_lots_fixed": "credit_lots",
}
NO_TRIGGERS = "no triggers"
VARIANTS: dict[str, list[str]] = {
    "all triggers": [],
    NO_TRIGGERS: list(TRIGGERS),
    **{f"without {trigger}": [trigger] for trigger in TRIGGERS},
}
SPEND = """\
\\set n random(1, 1000)
BEGIN;
SELECT user_id AS u, credits_version AS v, credits_balance AS b FROM users
  WHERE stripe_customer_id = 'c' || CAST(:n AS text) FOR NO KEY UPDATE \\gset
SELECT seq AS l, remaining AS r FROM credit_lots
  WHERE user_id = CAST(:u AS uuid) AND is_open LIMIT 1 \\gset
WITH entries AS (INSERT INTO credit_entries (user_id, seq, kind, amount, balance_after,
    result_balance, idempotency_key, request_digest, actor, effective_at, created_at, entry_hash)
  VALUES (CAST(:u AS uuid), :v + 1, 'spend', -1, :b - 1, :b - 1, 'k' || CAST(:v + 1 AS text),
    decode(repeat('00', 32), 'hex'), 'pgbench', clock_timestamp(), clock_timestamp(),
    sha256(''))),
postings AS (INSERT INTO credit_postings (user_id, seq, lot_seq, amount, remaining_after)
  VALUES (CAST(:u AS uuid), :v + 1, :l, -1, :r - 1)),
lots AS (UPDATE credit_lots SET remaining = :r - 1, last_seq = :v + 1
  WHERE user_id = CAST(:u AS uuid) AND seq = :l)
UPDATE users SET credits_balance = :b - 1, credits_version = :v + 1
  WHERE user_id = CAST(:u AS uuid);
COMMIT;
"""


def main() -> None:
    """Measure and print a row a variant."""
    options = _options()
    with temporary_server(Path(tempfile.gettempdir()), SERVER_SETTINGS, tell) as server:
        upgrade_to_head()
        run_in_database_transaction(_seed)
        dispose_db()
        rates: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
        for repetition in range(options.repeats):
            tell(f"Repetition {repetition + 1} of {options.repeats}")
            for variant, switched_off in VARIANTS.items():
                with connect(server.connection) as admin:
                    _switch_on_all_but(admin, switched_off)
                rates[variant].append(_spends_per_second(server, options))
    _print(rates)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What each of the ledger's triggers costs.")
    parser.add_argument("--seconds", type=int, default=3, help="of each turn")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clients", type=int, default=4)
    return parser.parse_args()


def _seed(session: Session) -> None:
    """Users with one large lot each."""
    users = [
        User(email=f"{n}@example.com", password_hash="x", stripe_customer_id=f"c{n}")  # noqa: S106
        for n in range(1, USERS + 1)
    ]
    session.add_all(users)
    session.flush()
    grants = [
        Grant(user_id=user.user_id, key=str(uuid.uuid4()), actor="system:benchmark", amount=10**6)
        for user in users
    ]
    ledger.execute(session, grants)


def _switch_on_all_but(admin: psycopg.Connection, switched_off: list[str]) -> None:
    for trigger, table in TRIGGERS.items():
        switch = "ALTER TABLE {} DISABLE TRIGGER {}" if trigger in switched_off else (
            "ALTER TABLE {} ENABLE TRIGGER {}"
        )  # fmt: skip
        admin.execute(sql.SQL(switch).format(sql.Identifier(table), sql.Identifier(trigger)))


def _spends_per_second(server: RunningServer, options: argparse.Namespace) -> float:
    """One turn of pgbench.

    Raises:
        SystemExit: a spend failed, so that there is no figure.
    """
    command = [
        *(str(server.bin_dir / "pgbench"), "--no-vacuum", "--protocol=prepared"),
        *(f"--client={options.clients}", f"--time={options.seconds}", "--file=/dev/stdin"),
    ]
    done = subprocess.run(
        command,
        input=SPEND,
        capture_output=True,
        text=True,
        env=_environment(server.connection),
        check=False,
    )
    rate = re.search(r"tps = ([\d.]+)", done.stdout)
    if done.returncode or rate is None:
        sys.exit(f"A spend failed, so there is no figure:\n{done.stderr}")
    return float(rate[1])


def _environment(connection: ConnectionParameters) -> dict[str, str]:
    return os.environ | {
        "PGHOST": connection.host,
        "PGPORT": str(connection.port),
        "PGUSER": connection.user,
        "PGPASSWORD": connection.password,
        "PGDATABASE": connection.database,
    }


def _print(rates: dict[str, list[float]]) -> None:
    table = Table("variant", "÷ no triggers, median (range)", box=None)
    for variant, reached in rates.items():
        table.add_row(variant, _shown(median_of(ratios(reached, rates[NO_TRIGGERS]))))
    Console().print(table)


def _shown(ratio: MedianOf) -> str:
    return f"{ratio.median:.2f} ({ratio.least:.2f}–{ratio.greatest:.2f})"  # noqa: RUF001  a range


if __name__ == "__main__":
    main()
