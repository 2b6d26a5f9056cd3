"""What a checkpoint says of one user, as octets: who, how many entries, the last one's hash."""

import struct
import uuid
from collections.abc import Iterator
from typing import NamedTuple

NO_ENTRY = bytes(32)
"""In the place of a hash, where a user has no entry."""

_FORMAT = struct.Struct(">16sQ32s")
LEAF_OCTETS = _FORMAT.size
USER_OCTETS = 16


class Leaf(NamedTuple):
    """One user at a checkpoint."""

    user_id: uuid.UUID
    version: int
    """How many entries the user has: `users.credits_version`."""
    last_hash: bytes
    """The newest entry's `entry_hash`, 32 octets; `NO_ENTRY` where there is none."""

    @property
    def octets(self) -> bytes:
        """16 of the user's id, 8 of the version, big-endian, and the hash."""
        return _FORMAT.pack(self.user_id.bytes, self.version, self.last_hash)


def leaf_of(octets: bytes) -> Leaf:
    """Read one back.

    Raises:
        ValueError: they are not as many as a leaf has.
    """
    if len(octets) != LEAF_OCTETS:
        raise ValueError(f"A leaf has {LEAF_OCTETS} octets, not {len(octets)}")
    user_id, version, last_hash = _FORMAT.unpack(octets)
    return Leaf(uuid.UUID(bytes=user_id), version, last_hash)


def split(octets: bytes) -> Iterator[bytes]:
    """The leaves of a piece that holds several, one after the other.

    Raises:
        ValueError: it ends within a leaf.
    """
    if len(octets) % LEAF_OCTETS:
        raise ValueError("A piece of leaves ends within a leaf")
    for start in range(0, len(octets), LEAF_OCTETS):
        yield octets[start : start + LEAF_OCTETS]
