"""The leaves of everybody, which change from checkpoint to checkpoint, and their root each time."""

from itertools import groupby

from src.common.anchors.leaves import USER_OCTETS, split
from src.common.anchors.tree import NOBODY, node_hash, root_of

_KEPT_BITS = 16
"""Users who agree in so many bits are kept together, and hashed anew when one of them changes."""


class KeptTree:
    """As `TreeBuilder` makes it, but kept: a change costs what lies above and beside it.

    Memory: a leaf's octets a user, and some MB.
    """

    def __init__(self) -> None:
        self._leaves: list[bytes] = [b""] * (1 << _KEPT_BITS)
        self._levels: list[list[bytes | None]] = [
            [None] * (1 << level) for level in range(_KEPT_BITS + 1)
        ]
        """By how many bits agree; None where nobody is."""
        self.users = 0
        self.entries = 0
        """How many there are, of all users together."""

    def change(self, leaves: bytes) -> None:
        """Put in leaves, in the order of user ids, in the place of those that the users had.

        Raises:
            ValueError: they end within a leaf.
        """
        changed: list[int] = []
        for place, group in groupby(split(leaves), key=_place):
            before = list(split(self._leaves[place]))
            mine = {leaf[:USER_OCTETS]: leaf for leaf in (*before, *group)}
            after = [leaf for _, leaf in sorted(mine.items())]
            self.users += len(after) - len(before)
            self.entries += sum(map(_version, after)) - sum(map(_version, before))
            self._leaves[place] = b"".join(after)
            self._levels[_KEPT_BITS][place] = root_of([self._leaves[place]])
            changed.append(place)
        for bit in range(_KEPT_BITS - 1, -1, -1):
            changed = [place for place, _ in groupby(place >> 1 for place in changed)]
            below, here = self._levels[bit + 1], self._levels[bit]
            for place in changed:
                left, right = below[2 * place], below[2 * place + 1]
                here[place] = node_hash(bit, left, right) if left and right else left or right

    @property
    def root(self) -> bytes:
        """The hash of the whole tree."""
        return self._levels[0][0] or NOBODY


def _place(leaf: bytes) -> int:
    return int.from_bytes(leaf[: _KEPT_BITS // 8])


def _version(leaf: bytes) -> int:
    return int.from_bytes(leaf[USER_OCTETS : USER_OCTETS + 8])
