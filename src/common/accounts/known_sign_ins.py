"""Sign-ins that change nothing but when it was, noted by one statement for all who come at once."""

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from src.common.postgres.async_confirmed_commits import NOT_ASYNCPG_S_SECONDS
from src.common.postgres.shared_statements import SharedStatement

if TYPE_CHECKING:
    from src.common.postgres.async_confirmed_commits import AsyncConfirmingConnection

_NOTE = """
WITH known AS (
    SELECT user_id FROM users
    WHERE user_id = ANY ((SELECT $1::uuid[])::uuid[])
        AND email = ((SELECT $2::text[])::text[])[array_position((SELECT $1::uuid[]), user_id)]
        AND is_active
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE users SET last_login_at = statement_timestamp(), updated_at = now()
WHERE user_id = ANY (ARRAY(SELECT user_id FROM known))
RETURNING user_id, email
"""
"""`$1` are users, `$2` their tokens' e-mails. Who is locked by others is left out: no wait for one
holds up all, and no two of these statements wait for each other."""


class SigningIn(NamedTuple):
    """Who signs in, and the e-mail of their token."""

    user_id: uuid.UUID
    email: str


class KnownSignIns(SharedStatement[SigningIn, bool]):
    """True where the user is known by this e-mail and active, and it is noted when they came.

    None is anything else, and nothing was written: `operations.sign_in` says what it is.
    """

    async def found(
        self, connection: "AsyncConfirmingConnection", asked: Sequence[SigningIn]
    ) -> dict[SigningIn, bool]:
        """Note these sign-ins, in a database transaction of its own."""
        users_and_emails = map(list, zip(*asked, strict=True))
        noting = connection.fetch(_NOTE, *users_and_emails, timeout=NOT_ASYNCPG_S_SECONDS)
        rows = await connection.confirmed(noting)
        return {SigningIn(*row): True for row in rows}
