"""In which group of users each event of a batch is settled, where groups have schemas.

Only a guess: the batch looks again once it has locked the payments (`known.py`), and what is of
another group goes by itself. So does what is of none.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from src.common.postgres.shared_statements import SharedStatement
from src.common.stripe.batches.readings import Reading
from src.common.stripe.groups import Whose, all_picked, names_and_users

if TYPE_CHECKING:
    import asyncpg
    from sqlalchemy.ext.asyncio import AsyncEngine

_FIND = """
SELECT p.object_id, NULL::uuid, u.schema
FROM unnest((SELECT $1::text[])) AS named (object_id)
JOIN public.payments_directory p ON p.object_id = named.object_id
JOIN public.users_directory u ON u.user_id = p.user_id
UNION ALL
SELECT NULL, u.user_id, u.schema
FROM unnest((SELECT $2::uuid[])) AS named (user_id)
JOIN public.users_directory u ON u.user_id = named.user_id
"""
NOBODYS = Whose((), None)
"""Of an event that names nothing."""


def whose_is(reading: Reading) -> Whose:
    """What tells whose an event is; one of no payment names nothing."""
    if reading.payment is not None:
        return Whose.of(reading.payment)
    known = reading.known_payment_intent_id
    return NOBODYS if known is None else Whose.called(known)


class GroupsOfEvents(SharedStatement[Whose, str]):
    """The groups of those that are known, for all events that arrive at once.

    `begin` begins a database transaction for it, where a pooler's connections have no time-outs of
    their own.
    """

    def __init__(self, connections: "Callable[[], AsyncEngine]", begin: str | None) -> None:
        super().__init__(connections)
        self._begin = begin

    async def found(
        self, connection: "asyncpg.Connection", asked: Sequence[Whose]
    ) -> dict[Whose, str]:
        """By one statement, which needs no route."""
        if self._begin is not None:
            await connection.execute(self._begin)
        rows = await connection.fetch(_FIND, *names_and_users(asked))
        if self._begin is not None:
            await connection.execute("ROLLBACK")  # it only read
        by_name = {name: group for name, user_id, group in rows if user_id is None}
        by_user = {user_id: group for _, user_id, group in rows if user_id is not None}
        return all_picked(asked, by_name, by_user)
