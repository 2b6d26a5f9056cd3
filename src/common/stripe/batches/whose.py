"""In which group of users each event of a batch is settled, where groups have schemas.

Only a guess: the batch looks again once it has locked the payments (`known.py`), and what is of
another group goes by itself. So does what is of none.
"""

import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import Connection

from src.common.postgres.shared_statements import SharedStatement
from src.common.purchases.whose import groups_of_payments
from src.common.sharding.directory import groups_of
from src.common.stripe.batches.readings import Reading

if TYPE_CHECKING:
    import asyncpg

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


class Whose(NamedTuple):
    """What tells whose an event is: what its payment is called, else whom the metadata names."""

    names: tuple[str, ...]
    user_id: uuid.UUID | None

    @classmethod
    def of(cls, reading: Reading) -> "Whose":
        """Of a reading; one of no payment names nothing."""
        if reading.payment is not None:
            return cls(tuple(sorted(reading.names)), reading.user_id)
        known = reading.known_payment_intent_id
        return cls((known,) if known is not None else (), None)

    def picked(self, by_name: Mapping[str, str], by_user: Mapping[uuid.UUID, str]) -> str | None:
        """The group, of those found."""
        noted = (by_name[name] for name in self.names if name in by_name)
        return next(noted, by_user.get(self.user_id) if self.user_id is not None else None)


class GroupsOfEvents(SharedStatement[Whose, str]):
    """The groups of those that are known, for all events that arrive at once."""

    async def found(
        self, connection: "asyncpg.Connection", asked: Sequence[Whose]
    ) -> dict[Whose, str]:
        """By one statement, which needs no route."""
        rows = await connection.fetch(_FIND, _names(asked), _users(asked))
        by_name = {name: group for name, user_id, group in rows if user_id is None}
        by_user = {user_id: group for _, user_id, group in rows if user_id is not None}
        return _all_picked(asked, by_name, by_user)


def look_up_groups(connection: Connection, asked: Collection[Whose]) -> dict[Whose, str]:
    """The same on a session's connection."""
    by_name = groups_of_payments(connection, _names(asked))
    return _all_picked(asked, by_name, groups_of(connection, _users(asked)))


def _names(asked: Collection[Whose]) -> list[str]:
    return sorted({name for each in asked for name in each.names})


def _users(asked: Collection[Whose]) -> list[uuid.UUID]:
    return sorted({each.user_id for each in asked if each.user_id is not None})


def _all_picked(
    asked: Collection[Whose], by_name: Mapping[str, str], by_user: Mapping[uuid.UUID, str]
) -> dict[Whose, str]:
    found = ((each, each.picked(by_name, by_user)) for each in asked)
    return {each: group for each, group in found if group is not None}
