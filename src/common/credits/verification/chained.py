"""Makes entries' hashes again from what the tables hold, whatever the rules would say to it.

A chain is recomputed from its own hashes, not from those that are stored: so the first entry that
does not fit is the first that is not what it was, and each later one differs with it.
"""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.credits.domain import chain
from src.common.credits.verification.reading import Portion, fetch_hashed, read_ledger
from src.common.credits.verification.report import Difference
from src.common.credits.verification.stored import HashedRows, LedgerRow, PostingRow, StoredRows
from src.common.models.user import User

ENTRY_HASH_DOES_NOT_FIT = "ENTRY_HASH_DOES_NOT_FIT"
"""The first entry of a user that is not as it was when its hash was made, or a later hash is."""
ENTRY_HASH_IS_MISSING = "ENTRY_HASH_IS_MISSING"
"""The first entry without a hash, where it should have one."""
PORTION_ENTRIES = 5_000
"""Entries read at a time."""


class Link(NamedTuple):
    """One entry of a user's chain."""

    seq: int
    stored: bytes | None
    """The hash that the entry carries."""
    computed: bytes
    """The hash that it would get now, after the ones computed before it."""


def links(user_id: uuid.UUID, previous: bytes, rows: HashedRows | StoredRows) -> Iterator[Link]:
    """Some entries of one user, in their order; `previous` is the hash that the first follows."""
    lines: defaultdict[int, list[PostingRow]] = defaultdict(list)
    for posting in rows.postings:
        lines[posting.seq].append(posting)
    made = made_by_entry(rows)
    for entry in rows.entries:
        of_entry = sorted(line[1:] for line in lines.get(entry.seq, ()))
        previous = chain.entry_hash(
            previous,
            (user_id, *entry[:-1]),
            b"".join(chain.line_octets(*line) for line in of_entry),
            made.get(entry.seq, chain.MADE_NOTHING),
        )
        yield Link(entry.seq, entry.entry_hash, previous)


def made_by_entry(rows: HashedRows | StoredRows) -> dict[int, bytes]:
    """What each entry made besides its postings, as it is hashed, by `seq`."""
    made: defaultdict[int, bytes] = defaultdict(bytes)
    for lot in rows.lots:
        made[lot.seq] += chain.lot_octets(
            lot.source, lot.transaction_id, lot.priority, lot.granted, lot.expires_at
        )
    for hold in rows.holds:
        made[hold.seq] += chain.hold_octets(hold.amount)
    for debt in rows.debts:
        if debt.opening_debt:
            made[debt.seq] += chain.opening_debt_octets(debt.opening_debt)
    return made


def recompute_chain(
    session: Session,
    user_id: uuid.UUID,
    *,
    after: int = 0,
    previous: bytes | None = None,
    until: int | None = None,
) -> Iterator[Link]:
    """A user's chain from the first entry, or after one whose hash is known, as of the tables.

    It reads portions, so its memory is bounded; a snapshot (`begin_snapshot`) holds them together.

    Args:
        session: In a database transaction.
        user_id: Whose.
        after: The `seq` of the entry whose hash is `previous`; 0 for the whole chain.
        previous: None is the ledger's id, which the first entry follows.
        until: The last entry that is wanted; None is the user's newest.

    Raises:
        DatabaseBusy: a passing condition of the database.
        psycopg.DataError: a value that the driver cannot read.
    """
    if previous is None:
        previous = read_ledger(session).ledger_id
    last = until if until is not None else _version_of(session, user_id)
    while after < last:
        portion = Portion(user_id, after, min(after + PORTION_ENTRIES, last))
        for rows in fetch_hashed(session, portion).values():
            for link in links(user_id, previous, rows):
                yield link
                previous = link.computed
        after = portion.until


def unfitting(user_id: uuid.UUID, ledger: LedgerRow, chained: Iterable[Link]) -> Difference | None:
    """The first entry of a whole chain that does not fit.

    Entries may be without a hash from some entry on, until all entries of everybody have one.
    """
    missing: int | None = None
    for link in chained:
        if link.stored is None:
            if missing is None:
                missing = link.seq
            if ledger.is_chained:
                break
        elif missing is not None:
            break
        elif link.stored != link.computed:
            return _difference(
                user_id,
                link.seq,
                ENTRY_HASH_DOES_NOT_FIT,
                link.computed.hex(),
                link.stored.hex(),
            )
    else:
        return None
    return _difference(user_id, missing, ENTRY_HASH_IS_MISSING, "a hash", None)


def _version_of(session: Session, user_id: uuid.UUID) -> int:
    version = select(User.credits_version).where(User.user_id == user_id)
    return session.scalars(version).one_or_none() or 0


def _difference(
    user_id: uuid.UUID, seq: int | None, kind: str, expected: str, found: str | None
) -> Difference:
    return Difference(user_id=user_id, seq=seq, kind=kind, expected=expected, found=found)
