"""What the databases hold, and whether it is what a contestant said it wrote."""

from collections.abc import Mapping
from dataclasses import dataclass

import psycopg
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.contestants.base import Database
from src.common.credits.verification.verify import verify
from src.common.database import SessionLocal, dispose_db

_READ: Mapping[Database, str] = {
    # rows written, one an operation; then sums that have to be one and the same
    Database.LEDGER: """
        SELECT (SELECT count(*) FROM credit_entries),
               ARRAY[(SELECT sum(credits_balance) FROM users),
                     (SELECT sum(amount) FROM credit_entries),
                     (SELECT sum(amount) FROM credit_postings),
                     (SELECT sum(remaining) FROM credit_lots)]::bigint[],
               ARRAY[(SELECT sum(credits_version) FROM users),
                     (SELECT count(*) FROM credit_entries)]::bigint[]""",
    Database.DOCUMENT: """
        SELECT (SELECT count(*) FROM transactions),
               ARRAY[(SELECT sum(credits_balance) FROM users)
                         - %(seeded)s::bigint,
                     (SELECT coalesce(sum(credits_added), 0) FROM transactions)]::bigint[],
               ARRAY[]::bigint[]""",
    Database.CREDIT_LEDGER: """
        SELECT (SELECT count(*) FROM credit_ledger WHERE delta < 0),
               ARRAY[(SELECT sum(credits) FROM credit_balance),
                     (SELECT sum(delta) FROM credit_ledger)]::bigint[], ARRAY[]::bigint[]""",
    Database.GRINGOTTS: """
        SELECT (SELECT count(*) FROM credit_transactions WHERE kind = 'charge'),
               ARRAY[(SELECT sum(credits) FROM users),
                     (SELECT sum(amount) FROM credit_transactions)]::bigint[], ARRAY[]::bigint[]""",
    Database.NOSTRO: """
        SELECT (SELECT count(*) FROM nostro.entry WHERE amount < 0),
               ARRAY[(SELECT sum(balance) FROM nostro.account),
                     (SELECT sum(amount) FROM nostro.entry)]::bigint[], ARRAY[]::bigint[]""",
}


class BooksDisagree(Exception):
    """The database does not hold what a contestant says it wrote; no figure may be shown."""


@dataclass(frozen=True)
class Books:
    """What one database holds."""

    written: int
    """Rows of which every operation that is no replay writes one."""
    credits: tuple[int, ...]
    """Sums of credits, taken from different tables, that have to be equal."""
    entries: tuple[int, ...] = ()
    """Numbers of entries, the same."""


class BooksOf:
    """Reads and compares one database's books."""

    def __init__(self, database: Database, connection: psycopg.Connection) -> None:
        self._database = database
        self._connection = connection
        self._seeded = 0
        if database is Database.DOCUMENT:
            row = connection.execute("SELECT sum(credits_balance) FROM users").fetchone()
            assert row is not None  # noqa: S101  an aggregate has one row
            self._seeded = int(row[0])

    def read(self) -> Books:
        """Read rows and sums, as of one snapshot."""
        parameters = {"seeded": self._seeded}
        row = self._connection.execute(_READ[self._database].encode(), parameters).fetchone()
        assert row is not None  # noqa: S101  a SELECT without FROM has one row
        written, credits_, entries = row
        return Books(written, tuple(credits_), tuple(entries))


def check(before: Books, after: Books, *, acknowledged: int, unwritten: int) -> None:
    """Compare what one contestant acknowledged with what it left in the database.

    Raises:
        BooksDisagree: naming the first sum that is off.
    """
    written = after.written - before.written
    if written != acknowledged - unwritten:
        raise BooksDisagree(
            f"{acknowledged} operations were acknowledged, {unwritten} of them to write "
            f"nothing, and {written} written."
        )
    if len(set(after.credits)) > 1:
        raise BooksDisagree(f"Balances, entries and lots hold different credits: {after.credits}.")
    if len(set(after.entries)) > 1:
        raise BooksDisagree(
            f"Users count {after.entries[0]} entries, there are {after.entries[1]}."
        )


def verify_everybody(sessions: sessionmaker[Session] = SessionLocal) -> int:
    """Run the ledger's own `verify` over every user; how many it found in order.

    Raises:
        BooksDisagree: if it finds a single difference.
    """
    users = 0
    for report in verify(sessions):
        users = report.users
        if report.differences:
            raise BooksDisagree(f"verify found differences, the first: {report.first[0]}")
    dispose_db()
    return users
