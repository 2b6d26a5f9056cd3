"""The names that Stripe has listed, of which a window may have millions."""

import secrets
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from hashlib import blake2b


class ListedNames:
    """Only digests are kept, of eight bytes each: a set of the names takes twenty times as much.

    They are made with a key of their own, so nobody can choose a name that passes for another.
    Among a million names by chance it does once in 10 ** 13 look-ups.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(16)
        self._digests = array("Q")
        self._is_sorted = True

    def update(self, names: Iterable[str]) -> None:
        """Add these names."""
        self._digests.extend(map(self._digest, names))
        self._is_sorted = False

    def __contains__(self, name: str) -> bool:
        """Whether it was added."""
        if not self._is_sorted:
            self._digests = array("Q", sorted(self._digests))
            self._is_sorted = True
        wanted = self._digest(name)
        place = bisect_left(self._digests, wanted)
        return place < len(self._digests) and self._digests[place] == wanted

    def _digest(self, name: str) -> int:
        return int.from_bytes(blake2b(name.encode(), digest_size=8, key=self._key).digest())
