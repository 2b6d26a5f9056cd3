"""What a row takes on the disk, and what an operation writes to the log: for planning.

Run it by `uv run python -m benchmarks.capacity`. These figures hardly depend on how busy the
machine is. Two say what an operation writes to the log: where its pages were changed since the last
checkpoint already, and where none was, so that each whole page goes into the log as well. What a
deployment writes lies between.
"""

import argparse
import random
import tempfile
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psycopg
from sqlalchemy.orm import Session

from benchmarks.calls.ledger import ACTOR
from benchmarks.output import show, tell
from benchmarks.seed import add_users, user_ids
from benchmarks.server import SERVER_SETTINGS, connect, refuse_volatile, temporary_server
from src.common.credits import ledger
from src.common.credits.domain.commands import Command, Grant, OpenHold, Spend
from src.common.database import dispose_db, run_in_database_transaction
from src.common.postgres.migrations import upgrade_to_head

HISTORY = 16
"""Entries of a user besides the four that `seed.py` always writes."""
BATCHES = (1, 32, 256)
OPERATIONS = 1_024
"""Of each kind and size of batch."""
STEADY = 3
"""Rounds, of which the least counts: the first still changes pages that were not changed before."""
TABLES = ("users", "credit_entries", "credit_postings", "credit_lots")
_SIZES = """
    SELECT relname, pg_relation_size(oid)::float / greatest(reltuples, 1),
           pg_indexes_size(oid)::float / greatest(reltuples, 1)
    FROM pg_class WHERE relname = ANY (%s) ORDER BY array_position(%s, relname::text)
"""
_WRITTEN = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"


class Figures(NamedTuple):
    """Bytes of the log for one operation."""

    steady: float
    """Where all its pages were changed since the last checkpoint."""
    after_a_checkpoint: float
    """Where none was."""
    compressed: float
    """The same with `wal_compression`."""


def spend(who: uuid.UUID, key: str) -> Command:
    """One credit, of a lot that has more."""
    return Spend(user_id=who, key=key, actor=ACTOR, amount=1)


def grant(who: uuid.UUID, key: str) -> Command:
    """A new lot."""
    return Grant(user_id=who, key=key, actor=ACTOR, amount=10)


def hold(who: uuid.UUID, key: str) -> Command:
    """Opened, and not yet ended."""
    return OpenHold(user_id=who, key=key, actor=ACTOR, amount=1, expires_in_seconds=3_600)


KINDS: dict[str, Callable[[uuid.UUID, str], Command]] = {
    "spend": spend,
    "grant": grant,
    "hold": hold,
}


def main() -> None:
    """Build the ledger, do the operations, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--operations", type=int, default=OPERATIONS)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    refuse_volatile(options.folder)
    with temporary_server(options.folder, SERVER_SETTINGS, tell) as server:
        upgrade_to_head()
        with connect(server.connection) as admin:
            tell(f"{options.users} users of {HISTORY + 4} entries each")
            add_users(admin, first=0, count=options.users, history=HISTORY)
            admin.execute("VACUUM ANALYZE")
            _show_sizes(admin)
            _show_written(admin, user_ids(options.users), options.operations)
        dispose_db()


def _show_sizes(admin: psycopg.Connection) -> None:
    show("| a row of | bytes | of its indexes | together |")
    show("|---|---|---|---|")
    for table, heap, indexes in admin.execute(_SIZES, [list(TABLES), list(TABLES)]).fetchall():
        show(f"| `{table}` | {heap:.0f} | {indexes:.0f} | {heap + indexes:.0f} |")


def _show_written(admin: psycopg.Connection, people: Sequence[uuid.UUID], count: int) -> None:
    show("\n| operation | at once | bytes of the log | after a checkpoint | and compressed |")
    show("|---|---|---|---|---|")
    for name, make in KINDS.items():
        for size in BATCHES:
            tell(f"{name}, {size} at once")
            figures = _measure(admin, people, make, min(size, count), count)
            show(f"| {name} | {size} | {' | '.join(f'{each:,.0f}' for each in figures)} |")


def _measure(
    admin: psycopg.Connection,
    people: Sequence[uuid.UUID],
    make: Callable[[uuid.UUID, str], Command],
    size: int,
    count: int,
) -> Figures:
    """After a checkpoint, compressed and not; then again for the same users, until it is steady."""
    chosen = random.sample(people, count)

    def written() -> float:
        before = _log_position(admin)
        for first in range(0, count, size):
            batch = [make(who, f"{uuid.uuid4()}") for who in chosen[first : first + size]]
            run_in_database_transaction(partial(_do, commands=batch))
        return (_log_position(admin) - before) / count

    after_a_checkpoint: list[float] = []
    for compression in ("on", "off"):
        admin.execute(f"ALTER SYSTEM SET wal_compression = {compression}".encode())
        admin.execute("SELECT pg_reload_conf()")
        dispose_db()  # a new connection has it for sure
        admin.execute("CHECKPOINT")
        after_a_checkpoint.append(written())
    return Figures(min(written() for _ in range(STEADY)), *reversed(after_a_checkpoint))


def _do(session: Session, commands: Sequence[Command]) -> None:
    ledger.execute(session, commands)


def _log_position(admin: psycopg.Connection) -> int:
    [position] = admin.execute(_WRITTEN).fetchone() or [0]
    return int(position)


if __name__ == "__main__":
    main()
