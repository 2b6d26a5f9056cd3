"""Has both databases be one ledger: with its id every user's chain of hashes begins."""

import datetime as dt
import hashlib
import uuid

from psycopg import sql

from src.common.exceptions import Inconsistent
from src.common.sharding.copying.databases import Database
from src.common.sharding.copying.parity import Content, Parity

Ledger = tuple[uuid.UUID, dt.datetime | None]


def share_ledger(source: Database, here: Database, parity: Parity, *, writes: bool) -> None:
    """Have this database's ledger be the source's, where it is written to.

    Raises:
        Inconsistent: LEDGERS_DIFFER, the source's groups are not one ledger.
    """
    with source.snapshot():
        theirs = _ledger(source)
    if writes:
        for schema in here.schemas:
            here.run(
                "UPDATE {} SET ledger_id = {}, chained_at = {}",
                sql.Identifier(schema, "credit_ledgers"),
                *map(sql.Literal, theirs),
            )
    table = parity.of("credit_ledgers")
    table.source.add(_content(theirs))
    table.here.add(_content(_ledger(here)))


def _ledger(database: Database) -> Ledger:
    """The id of all, and since when all have hashes: the last of them, if each has."""
    found = [
        database.run(
            "SELECT ledger_id, chained_at FROM {}", sql.Identifier(schema, "credit_ledgers")
        ).fetchall()[0]
        for schema in database.schemas
    ]
    if len({ledger_id for ledger_id, _ in found}) > 1:
        raise Inconsistent("The groups are not one ledger", "LEDGERS_DIFFER")
    since = [chained_at for _, chained_at in found]
    return found[0][0], None if None in since else max(since)


def _content(ledger: Ledger) -> Content:
    return Content(1, hashlib.sha256(f"{ledger}".encode()).digest())
