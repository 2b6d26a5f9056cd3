"""A Merkle tree over users, whose shape follows from their ids alone: pure.

All leaves below a node agree in the first bits of the user's id. The node says which bit is the
first they do not: who has 0 there is below its left child, who has 1 below its right one. So there
is one place for a user, whoever else is in the tree, and a changed user changes the nodes above
that place and no other (decision 0062).

As in RFC 6962 a leaf is hashed with an octet 0 before it and a node with an octet 1, so that
neither passes for the other; the tree of nobody is the hash of nothing.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from src.common.anchors.leaves import LEAF_OCTETS, USER_OCTETS, split

BITS = 8 * USER_OCTETS
NOBODY = hashlib.sha256(b"").digest()
"""The root where there is no user."""


class Step(NamedTuple):
    """One node on the way from a leaf to the root."""

    bit: int
    """The first bit, counted from 0, in which users below the node differ."""
    sibling: bytes
    """The hash of the child that is not on the way, 32 octets."""


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of a leaf."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(bit: int, left: bytes, right: bytes) -> bytes:
    """The hash of a node over its children's."""
    return hashlib.sha256(b"\x01" + bit.to_bytes() + left + right).digest()


class TreeBuilder:
    """Makes the tree of leaves as they come, in the order of user ids.

    It keeps one hash for each level of what is open at its right edge: at most 129.
    """

    def __init__(self, *, wanted: bytes | None = None) -> None:
        """Note the way to a user's leaf too, where the id of one is `wanted`, as 16 octets."""
        self._hashes: list[bytes] = []
        self._bits: list[int] = []  # between each two of the hashes, rising
        self._last = -1
        self._wanted = wanted
        self._place: int | None = None  # of the hash that has the wanted leaf below it
        self.path: list[Step] = []
        """From the wanted leaf to the root, once that was asked for."""

    def add(self, leaves: bytes) -> None:
        """Add several leaves.

        Raises:
            ValueError: a user does not come after the one before.
        """
        hashes, bits, last = self._hashes, self._bits, self._last
        sha256 = hashlib.sha256
        for leaf in split(leaves):
            who = int.from_bytes(leaf[:USER_OCTETS])
            if who <= last:
                raise ValueError("Leaves come in the order of user ids, each user once")
            if hashes:
                bit = BITS - (who ^ last).bit_length()
                while bits and bits[-1] > bit:
                    self._join()
                bits.append(bit)
            hashes.append(sha256(b"\x00" + leaf).digest())
            if leaf[:USER_OCTETS] == self._wanted:
                self._place = len(hashes) - 1
            last = who
        self._last = last

    def root(self) -> bytes:
        """The hash of the whole tree; nothing can be added afterwards."""
        while self._bits:
            self._join()
        return self._hashes[0] if self._hashes else NOBODY

    @property
    def has_wanted(self) -> bool:
        """Whether the wanted user's leaf came."""
        return self._place is not None

    def _join(self) -> None:
        bit, right, left = self._bits.pop(), self._hashes.pop(), self._hashes.pop()
        place = len(self._hashes)
        if self._place == place:
            self.path.append(Step(bit, right))
        elif self._place == place + 1:
            self.path.append(Step(bit, left))
            self._place = place
        self._hashes.append(node_hash(bit, left, right))


def root_of(pieces: Iterable[bytes]) -> bytes:
    """The root over all leaves of these pieces, in the order of user ids."""
    builder = TreeBuilder()
    for piece in pieces:
        builder.add(piece)
    return builder.root()


def root_by_path(leaf: bytes, path: Sequence[Step]) -> bytes:
    """The root of the tree in which this path leads from the leaf upwards.

    Raises:
        ValueError: no tree has such a path.
    """
    if len(leaf) != LEAF_OCTETS:
        raise ValueError(f"A leaf has {LEAF_OCTETS} octets")
    who = int.from_bytes(leaf[:USER_OCTETS])
    found, below = leaf_hash(leaf), BITS
    for bit, sibling in path:
        if not 0 <= bit < below or len(sibling) != len(NOBODY):
            raise ValueError("The bits of a path fall, from 127 at most, and hashes have 32 octets")
        is_right = who >> (BITS - 1 - bit) & 1
        found = node_hash(bit, sibling, found) if is_right else node_hash(bit, found, sibling)
        below = bit
    return found
