"""What checkpoints say users had, kept in a temporary file until it is compared, user by user."""

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from itertools import groupby
from types import TracebackType
from typing import NamedTuple, Self

from src.common.anchors.leaves import leaf_of, split


class Expected(NamedTuple):
    """That a user's entry of this number had this hash."""

    version: int
    """The entry's `seq`; 0 where the user had none."""
    checkpoint: int
    """The first that says so."""
    last_hash: bytes


class Expectations:
    """All of them; SQLite sorts more than memory holds."""

    def __init__(self) -> None:
        self._store = sqlite3.connect("")  # a temporary file, which goes with the connection
        self._store.execute(
            "CREATE TABLE expected (user_id BLOB, version INTEGER, checkpoint INTEGER, hash BLOB)"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._store.close()

    def add(self, checkpoint: int, leaves: bytes) -> None:
        """Note what a checkpoint says of these users."""
        found = map(leaf_of, split(leaves))
        self._store.executemany(
            "INSERT INTO expected VALUES (?, ?, ?, ?)",
            ((user_id.bytes, version, checkpoint, hashed) for user_id, version, hashed in found),
        )

    def forget(self, checkpoint: int) -> None:
        """Forget what a checkpoint said, of which something is damaged."""
        self._store.execute("DELETE FROM expected WHERE checkpoint = ?", (checkpoint,))

    def count_users(self) -> int:
        """Of how many users something is expected."""
        with closing(self._store.execute("SELECT count(DISTINCT user_id) FROM expected")) as found:
            return int(found.fetchone()[0])

    def by_user(self) -> Iterator[tuple[uuid.UUID, list[Expected]]]:
        """User by user, in the order of ids; each entry once, the lowest first."""
        rows = self._store.execute(
            "SELECT user_id, version, min(checkpoint), hash FROM expected"
            " GROUP BY user_id, version, hash ORDER BY user_id, version, 3"
        )
        for user_id, mine in groupby(rows, key=lambda row: row[0]):
            yield uuid.UUID(bytes=user_id), [Expected(*row[1:]) for row in mine]
