"""Closes a checkpoint: reads a snapshot, hashes it, signs it, and writes down what sinks need.

The snapshot is over before anything is hashed. Leaves go through files, so memory is bounded.
Whoever writes the number first has closed that checkpoint; anybody else's try is nothing.
"""

import hashlib
import uuid
from collections.abc import Generator

from sqlalchemy import func, insert, select, text
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.orm import Session, sessionmaker

from src.common.anchors.checkpoints import Checkpoint
from src.common.anchors.leaves import LEAF_OCTETS
from src.common.anchors.notes import SigningKey
from src.common.anchors.records import checkpoint_of
from src.common.anchors.snapshot import (
    AnchorContradiction,
    Counted,
    begin_reading,
    groups_to_read,
    read_pages,
    refuse_removed,
    seeing,
)
from src.common.anchors.spooled_leaves import SpooledLeaves
from src.common.anchors.tree import TreeBuilder
from src.common.exceptions import Conflict
from src.common.models.anchor_checkpoint import AnchorCheckpoint
from src.common.models.anchor_part import AnchorPart
from src.common.models.credit_ledger import CreditLedger

_WRITTEN_TOGETHER = 8
"""Parts that are written in one step."""
_NOTE_CHANGED = text(
    f"""
    INSERT INTO anchored_users (user_id, version, last_hash)
    SELECT encode(substring(leaves FROM start FOR 16), 'hex')::uuid,
           ('x' || encode(substring(leaves FROM start + 16 FOR 8), 'hex'))::bit(64)::bigint,
           substring(leaves FROM start + 24 FOR 32)
    FROM CAST(:leaves AS bytea) AS leaves,
         generate_series(1, octet_length(leaves), {LEAF_OCTETS}) AS start
    ON CONFLICT (user_id) DO UPDATE
    SET version = excluded.version, last_hash = excluded.last_hash
    """  # noqa: S608  a number of ours
)


def close_checkpoint(
    sessions: sessionmaker[Session], key: SigningKey, *, is_complete: bool
) -> Generator[int, None, Checkpoint]:
    """Close the next checkpoint; yields how many users are done, many times.

    Args:
        sessions: Make sessions on the primary. It owns two database transactions: one that reads,
            and one that writes.
        key: What signs.
        is_complete: Whether every user's leaf comes with it; the first one always is so.

    Raises:
        AnchorContradiction: the entries are not what the newest checkpoint says they were.
        Conflict: ANCHOR_NOT_CHAINED, entries from before the chain have no hash yet;
            ANCHOR_CLOSED_ALREADY, somebody else was faster.
        DatabaseBusy: a passing condition of the database.
    """
    with SpooledLeaves() as everybody, SpooledLeaves() as changed:
        counted = Counted()
        with sessions.begin() as session:
            begin_reading(session)
            newest = _newest(session)
            ledger_id = _ledger_id(session, newest)
            closed_at = session.scalars(select(func.clock_timestamp())).one()
            groups = groups_to_read(session)
            for group in groups:
                with seeing(session, group):
                    _refuse_unchained(session, newest)
                    for page in read_pages(session, counted):
                        everybody.add(page.leaves)
                        changed.add(page.changed)
                        yield counted.users
                everybody.end_run()
                changed.end_run()
            refuse_removed(session, counted, groups)
        yield from everybody.sort()
        yield from changed.sort()
        is_complete = is_complete or newest is None
        root = yield from _root_of(everybody)
        coming = everybody if is_complete else changed
        checkpoint = Checkpoint(
            ledger_id=ledger_id,
            number=1 if newest is None else newest.number + 1,
            closed_at=closed_at,
            users=counted.users,
            entries=counted.entries,
            root=root,
            is_complete=is_complete,
            leaves=coming.count(),
            leaves_hash=_hash_of(coming),
            previous=None if newest is None else newest.checkpoint_hash,
        )
        with sessions.begin() as session:
            yield from _write(session, checkpoint, key.sign(checkpoint.text), coming, changed)
    return checkpoint


def _ledger_id(session: Session, newest: AnchorCheckpoint | None) -> uuid.UUID:
    ledger_id = session.scalars(select(CreditLedger.ledger_id)).one_or_none()
    if ledger_id is None:
        raise AnchorContradiction("The row of credit_ledgers is missing")
    if newest is not None and checkpoint_of(newest.note).ledger_id != ledger_id:
        raise AnchorContradiction(
            f"The ledger's id is {ledger_id}, and was another at checkpoint {newest.number}"
        )
    return ledger_id


def _refuse_unchained(session: Session, newest: AnchorCheckpoint | None) -> None:
    """Where groups of users have schemas, each says of itself whether its entries are chained."""
    if session.scalars(select(CreditLedger.chained_at)).one_or_none() is not None:
        return
    if newest is not None:
        raise AnchorContradiction(
            f"Every entry had its hash at checkpoint {newest.number}, and the ledger says no more "
            "that they have"
        )
    raise Conflict(
        "Entries from before the chain have no hash yet: run `flashslides db chain`",
        "ANCHOR_NOT_CHAINED",
    )


def _newest(session: Session) -> AnchorCheckpoint | None:
    newest = select(AnchorCheckpoint).order_by(AnchorCheckpoint.number.desc()).limit(1)
    return session.scalars(newest).one_or_none()


def _root_of(everybody: SpooledLeaves) -> Generator[int, None, bytes]:
    builder, users = TreeBuilder(), 0
    for piece in everybody.pieces():
        builder.add(piece)
        users += len(piece) // LEAF_OCTETS
        yield users
    return builder.root()


def _hash_of(leaves: SpooledLeaves) -> bytes:
    hashed = hashlib.sha256()
    for piece in leaves.pieces():
        hashed.update(piece)
    return hashed.digest()


def _write(
    session: Session,
    checkpoint: Checkpoint,
    note: str,
    coming: SpooledLeaves,
    changed: SpooledLeaves,
) -> Generator[int, None, None]:
    closed = session.execute(
        postgresql_insert(AnchorCheckpoint)
        .values(
            number=checkpoint.number,
            note=note,
            checkpoint_hash=checkpoint.hash,
            is_complete=checkpoint.is_complete,
            closed_at=checkpoint.closed_at,
        )
        .on_conflict_do_nothing()
        .returning(AnchorCheckpoint.number)
    ).one_or_none()
    if closed is None:
        raise Conflict(
            f"Somebody else closed checkpoint {checkpoint.number} meanwhile",
            "ANCHOR_CLOSED_ALREADY",
        )
    for part, leaves in enumerate(coming.pieces()):
        row = {"number": checkpoint.number, "part": part, "leaves": leaves}
        session.execute(insert(AnchorPart), row)
        if part % _WRITTEN_TOGETHER == 0:
            yield checkpoint.users
    for part, leaves in enumerate(changed.pieces()):
        session.execute(_NOTE_CHANGED, {"leaves": leaves})
        if part % _WRITTEN_TOGETHER == 0:
            yield checkpoint.users
