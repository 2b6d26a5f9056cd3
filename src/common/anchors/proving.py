"""Makes the proof of an entry, from the tables, against the newest checkpoint."""

import uuid
from collections import defaultdict
from collections.abc import Iterator

import psycopg
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from src.common.anchors.leaves import LEAF_OCTETS, leaf_of
from src.common.anchors.proofs import (
    VERSION,
    Proof,
    ProvenEntry,
    ProvenLine,
    ProvenStep,
    root_of_proof,
)
from src.common.anchors.records import checkpoint_of
from src.common.anchors.snapshot import PAGE_USERS, begin_reading, following
from src.common.anchors.tree import TreeBuilder
from src.common.credits.domain import chain
from src.common.credits.verification.chained import made_by_entry
from src.common.credits.verification.reading import Portion, fetch_hashed, read_ledger
from src.common.exceptions import Conflict, Inconsistent, NotFound
from src.common.models.anchor_checkpoint import AnchorCheckpoint
from src.common.models.anchored_user import AnchoredUser
from src.common.models.user import User

ENTRIES_MAX = 10_000
"""How many entries a proof may have: those between the one that is proven and the checkpoint."""

_LEAVES = text(
    """
    SELECT string_agg(uuid_send(user_id) || int8send(version) || last_hash, ''::bytea
                      ORDER BY user_id)
    FROM (SELECT user_id, version, last_hash FROM anchored_users
          WHERE user_id >= :first ORDER BY user_id LIMIT :size) AS page
    """
)


def prove(session: Session, user_id: uuid.UUID, seq: int) -> Proof:
    """The proof that an entry is in the newest checkpoint; the database transaction begins here.

    Raises:
        NotFound: USER_NOT_FOUND or ENTRY_NOT_FOUND.
        Conflict: ANCHOR_NOT_YET, no checkpoint has the entry yet; ANCHOR_PROOF_TOO_LONG, too many
            entries lie between it and the checkpoint.
        Inconsistent: ANCHOR_CONTRADICTION, the tables do not make what was signed.
    """
    begin_reading(session)
    checkpoint = session.scalars(
        select(AnchorCheckpoint).order_by(AnchorCheckpoint.number.desc()).limit(1)
    ).one_or_none()
    version = _anchored_version(session, user_id, seq)
    if checkpoint is None or version is None or version < seq:
        raise Conflict(f"No checkpoint has entry {seq} yet; the next one will", "ANCHOR_NOT_YET")
    if version - seq >= ENTRIES_MAX:
        raise Conflict(
            f"{version - seq} entries lie between this one and the checkpoint; a proof has "
            f"{ENTRIES_MAX} at most",
            "ANCHOR_PROOF_TOO_LONG",
        )
    root = checkpoint_of(checkpoint.note).root
    tree = TreeBuilder(wanted=user_id.bytes)
    for leaves in _leaves(session):
        tree.add(leaves)
    if tree.root() != root:
        raise Inconsistent(
            f"`anchored_users` does not make the root of checkpoint {checkpoint.number}: somebody "
            "changed it; run `flashslides verify --anchors`",
            "ANCHOR_CONTRADICTION",
        )
    try:
        proof = Proof(
            version=VERSION,
            user_id=user_id,
            previous=_previous(session, user_id, seq),
            entries=list(_entries(session, Portion(user_id, seq - 1, version))),
            path=[ProvenStep(step.bit, step.sibling) for step in tree.path],
            note=checkpoint.note,
        )
    except psycopg.DataError:  # nothing that the ledger writes: it cannot even be read
        proof = None
    if proof is None or root_of_proof(proof) != root:
        raise Inconsistent(
            f"Entry {seq} of user {user_id}, or one after it, is not what checkpoint "
            f"{checkpoint.number} has: run `flashslides verify --anchors`",
            "ANCHOR_CONTRADICTION",
        )
    return proof


def _anchored_version(session: Session, user_id: uuid.UUID, seq: int) -> int | None:
    version = session.scalars(
        select(User.credits_version).where(User.user_id == user_id)
    ).one_or_none()
    if version is None:
        raise NotFound(f"There is no user {user_id}", "USER_NOT_FOUND")
    if not 0 < seq <= version:
        raise NotFound(f"User {user_id} has no entry {seq}", "ENTRY_NOT_FOUND")
    return session.scalars(
        select(AnchoredUser.version).where(AnchoredUser.user_id == user_id)
    ).one_or_none()


def _leaves(session: Session) -> Iterator[bytes]:
    first: uuid.UUID | None = uuid.UUID(int=0)
    while first is not None:
        leaves = session.execute(_LEAVES, {"first": first, "size": PAGE_USERS}).scalar_one()
        if leaves is None:
            return
        yield leaves
        first = following(leaf_of(leaves[-LEAF_OCTETS:]).user_id)


def _previous(session: Session, user_id: uuid.UUID, seq: int) -> bytes:
    """The hash that an entry follows, as it is stored."""
    if seq == 1:
        return read_ledger(session).ledger_id
    before = fetch_hashed(session, Portion(user_id, seq - 2, seq - 1)).get(user_id.bytes)
    stored = before.entries[0].entry_hash if before else None
    return stored or b""


def _entries(session: Session, portion: Portion) -> Iterator[ProvenEntry]:
    rows = fetch_hashed(session, portion).get(portion.user_id.bytes)
    if rows is None:
        return
    made = made_by_entry(rows)
    lines: defaultdict[int, list[ProvenLine]] = defaultdict(list)
    for line in sorted(rows.postings):
        lines[line.seq].append(ProvenLine(*line[1:]))
    for entry in rows.entries:
        yield ProvenEntry(
            *entry[:-1],
            lines=lines[entry.seq],
            made=made.get(entry.seq, chain.MADE_NOTHING),
        )
