"""A proof that an entry is in a signed checkpoint: to be kept, and checked without any database."""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Annotated

import msgspec

from src.common.anchors.checkpoints import Checkpoint, parse_checkpoint
from src.common.anchors.leaves import Leaf
from src.common.anchors.notes import PublicKey, verified_text
from src.common.anchors.tree import Step, root_by_path
from src.common.credits.domain import chain
from src.common.exceptions import Inconsistent, Invalid

VERSION = 1
PROOF_OCTETS_MAX = 64 << 20
"""The largest proof that is read."""
_HASH_OCTETS = (16, 32)
"""Of the ledger's id, and of an entry's hash."""
Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
Position = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Instant = Annotated[dt.datetime, msgspec.Meta(tz=True)]
Short = Annotated[str, msgspec.Meta(max_length=1_000)]


class ProvenLine(msgspec.Struct, forbid_unknown_fields=True):
    """One of an entry's postings."""

    lot_seq: Position
    amount: Int32
    remaining_after: Int32


class ProvenEntry(msgspec.Struct, forbid_unknown_fields=True):
    """An entry, with everything that its hash is made of but the hash before."""

    seq: Position
    kind: Short
    amount: Int32
    balance_after: Int32
    result_balance: Int32
    captured: Int32 | None
    related_seq: Position | None
    hold_expires_at: Instant | None
    idempotency_key: Short
    request_digest: bytes
    reference: Short | None
    actor: Short
    effective_at: Instant
    created_at: Instant
    lines: list[ProvenLine]
    made: bytes
    """What else the entry made, as it is hashed: a lot, a hold or an opening debt."""


class ProvenStep(msgspec.Struct, forbid_unknown_fields=True):
    """One node on the way to the root."""

    bit: Annotated[int, msgspec.Meta(ge=0, le=127)]
    sibling: bytes


class Proof(msgspec.Struct, forbid_unknown_fields=True):
    """That the first of these entries is in a checkpoint.

    The others are those that follow it up to the checkpoint: their hashes lead to the one that the
    checkpoint has of the user.
    """

    version: int
    user_id: uuid.UUID
    previous: bytes
    """The hash of the entry before the first one, or the ledger's id where there is none."""
    entries: list[ProvenEntry]
    path: list[ProvenStep]
    """From the user's leaf to the root."""
    note: str
    """The checkpoint, signed."""


class Proven(msgspec.Struct, frozen=True):
    """What a proof shows."""

    ledger_id: uuid.UUID
    user_id: uuid.UUID
    seq: int
    kind: str
    amount: int
    """In credits; negative where they were taken."""
    balance_after: int
    actor: str
    created_at: dt.datetime
    checkpoint: int
    closed_at: dt.datetime
    """When the checkpoint was closed: the entry has not been changed since."""


def check_proof(octets: bytes, keys: Sequence[PublicKey]) -> Proven:
    """Verify a proof; needs nothing but the keys whose signatures are believed.

    Raises:
        Invalid: ANCHOR_PROOF_UNREADABLE, it is no proof.
        Inconsistent: ANCHOR_SIGNATURE_INVALID, or ANCHOR_PROOF_DOES_NOT_FIT, it proves nothing.
    """
    if len(octets) > PROOF_OCTETS_MAX:
        raise _unreadable("it is too large")
    try:
        proof = msgspec.json.decode(octets, type=Proof)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise _unreadable(str(error)) from None
    if proof.version != VERSION or not proof.entries:
        raise _unreadable(f"a proof is of version {VERSION} and has entries")
    if len(proof.previous) not in _HASH_OCTETS:
        raise _unreadable("`previous` is no hash and no ledger's id")
    checkpoint = parse_checkpoint(verified_text(proof.note, keys))
    if root_of_proof(proof) != checkpoint.root:
        raise Inconsistent(
            "The entry does not lead to the signed root: it, or the proof, was changed",
            "ANCHOR_PROOF_DOES_NOT_FIT",
        )
    if proof.entries[0].seq == 1 and proof.previous != checkpoint.ledger_id.bytes:
        raise Inconsistent("The first entry does not begin its ledger", "ANCHOR_PROOF_DOES_NOT_FIT")
    return _proven(proof, checkpoint)


def root_of_proof(proof: Proof) -> bytes | None:
    """The root to which the entries lead; None where they are none, or do not follow each other."""
    if not proof.entries:
        return None
    hashed = proof.previous
    first = proof.entries[0].seq
    for seq, entry in enumerate(proof.entries, first):
        if entry.seq != seq:
            return None
        hashed = _entry_hash(proof.user_id, hashed, entry)
    last = first + len(proof.entries) - 1
    leaf = Leaf(proof.user_id, last, hashed).octets
    try:
        return root_by_path(leaf, [Step(step.bit, step.sibling) for step in proof.path])
    except ValueError:
        return None


def _entry_hash(user_id: uuid.UUID, previous: bytes, entry: ProvenEntry) -> bytes:
    row = (
        *(user_id, entry.seq, entry.kind, entry.amount, entry.balance_after),
        *(entry.result_balance, entry.captured, entry.related_seq, entry.hold_expires_at),
        *(entry.idempotency_key, entry.request_digest, entry.reference, entry.actor),
        *(entry.effective_at, entry.created_at),
    )
    lines = b"".join(
        chain.line_octets(line.lot_seq, line.amount, line.remaining_after) for line in entry.lines
    )
    return chain.entry_hash(previous, row, lines, entry.made)


def _proven(proof: Proof, checkpoint: Checkpoint) -> Proven:
    entry = proof.entries[0]
    return Proven(
        ledger_id=checkpoint.ledger_id,
        user_id=proof.user_id,
        seq=entry.seq,
        kind=entry.kind,
        amount=entry.amount,
        balance_after=entry.balance_after,
        actor=entry.actor,
        created_at=entry.created_at,
        checkpoint=checkpoint.number,
        closed_at=checkpoint.closed_at,
    )


def _unreadable(why: str) -> Invalid:
    return Invalid(f"This is no proof: {why}", "ANCHOR_PROOF_UNREADABLE")
