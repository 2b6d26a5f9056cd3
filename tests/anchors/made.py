"""Leaves, checkpoints and keys for tests, made of nothing."""

import datetime as dt
import hashlib
import uuid
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import strategies as st

from src.common.anchors.checkpoints import Checkpoint
from src.common.anchors.leaves import NO_ENTRY, Leaf
from src.common.anchors.notes import SigningKey, new_signing_key
from src.common.anchors.tree import root_of

LEDGER_ID = uuid.UUID("6f6c2c3e-0000-4000-8000-000000000001")
CLOSED_AT = dt.datetime(2026, 12, 1, 2, 22, 46, 123_456, tzinfo=dt.UTC)
KEY: SigningKey = new_signing_key("flashslides")

_crowded = st.integers(0, 40) | st.integers(2**128 - 40, 2**128 - 1)
user_ids = (st.integers(0, 2**128 - 1) | _crowded).map(lambda number: uuid.UUID(int=number))
"""Anybody's, and often such that differ in their last bits only."""


def _leaf(user_id: uuid.UUID, version: int, seed: int) -> bytes:
    hashed = hashlib.sha256(f"{user_id}{version}{seed}".encode()).digest()
    return Leaf(user_id, version, hashed if version else NO_ENTRY).octets


leaves = st.builds(_leaf, user_ids, st.integers(0, 2**31 - 1), st.integers(0, 3))
crowds = st.lists(leaves, max_size=40, unique_by=lambda leaf: leaf[:16]).map(sorted)
"""The leaves of several users, in the order of their ids."""


def crowd(size: int, *, version: int = 3) -> list[bytes]:
    """So many users' leaves."""
    ids = [uuid.UUID(int=hash_of(number)) for number in range(size)]
    return sorted(_leaf(user_id, version, 0) for user_id in ids)


def hash_of(number: int) -> int:
    """A number as random as an id, the same each time."""
    return int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:16])


def checkpoint_over(
    everybody: Sequence[bytes],
    coming: Sequence[bytes] | None = None,
    *,
    before: Checkpoint | None = None,
) -> Checkpoint:
    """A checkpoint over these leaves; all of them come with it, or only `coming`."""
    came = everybody if coming is None else coming
    return Checkpoint(
        ledger_id=LEDGER_ID,
        number=1 if before is None else before.number + 1,
        closed_at=CLOSED_AT,
        users=len(everybody),
        entries=sum(int.from_bytes(leaf[16:24]) for leaf in everybody),
        root=root_of([b"".join(everybody)]),
        is_complete=coming is None,
        leaves=len(came),
        leaves_hash=hashlib.sha256(b"".join(came)).digest(),
        previous=None if before is None else before.hash,
    )


def in_pieces(came: Sequence[bytes], size: int = 1_024) -> list[bytes]:
    """Leaves as they are kept: so many a piece."""
    cuts = [*range(0, len(came), size), len(came)]
    return [b"".join(came[start:end]) for start, end in pairwise(cuts)]
