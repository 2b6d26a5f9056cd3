"""Whether somebody asked for something with a key, looked up for all who move credits at once."""

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from src.common.postgres.shared_statements import SharedStatement

if TYPE_CHECKING:
    import asyncpg

_FIND = """
SELECT asked.user_id, asked.key
FROM unnest((SELECT $1::uuid[]), (SELECT $2::text[])) AS asked (user_id, key)
JOIN LATERAL (
    SELECT FROM approvals
    WHERE approvals.user_id = asked.user_id AND idempotency_key = asked.key LIMIT 1
) AS request ON true
"""


class UsedKey(NamedTuple):
    """A user, and the key with which somebody moves credits of theirs."""

    user_id: uuid.UUID
    key: str


class AskedKeys(SharedStatement[UsedKey, bool]):
    """True where a request has the key, however it stands."""

    async def found(
        self, connection: "asyncpg.Connection", asked: Sequence[UsedKey]
    ) -> dict[UsedKey, bool]:
        """Those of these keys that requests have."""
        rows = await connection.fetch(_FIND, *map(list, zip(*asked, strict=True)))
        return {UsedKey(*row): True for row in rows}
