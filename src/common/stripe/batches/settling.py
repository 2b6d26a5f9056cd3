"""A batch of events settled in one database transaction: locked, read, decided, written."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from src.common.credits.engine.connection import EngineConnection
from src.common.postgres.errors import RetryableDatabaseError
from src.common.postgres.kept_errors import keep
from src.common.purchases.rules import Terms
from src.common.stripe.batches.decisions import decide
from src.common.stripe.batches.known import lock, look_up
from src.common.stripe.batches.readings import Reading
from src.common.stripe.batches.writing import worded
from src.common.stripe.inbox import EventAnswer

if TYPE_CHECKING:
    import asyncpg

logger = structlog.get_logger(__name__)

Answers = list[EventAnswer | None]
"""One for each event of a batch; None where it has to go by itself."""


class Together:
    """Settles events that are about different things, on a connection of its own."""

    def __init__(
        self,
        connection: EngineConnection,
        terms: Terms,
        *,
        are_stored: bool,
        is_of_group: bool = False,
    ) -> None:
        self._connection = connection
        self._is_of_group = is_of_group
        """Whether the connection sees one group of users, and there are others."""
        self._terms = terms
        self._are_stored = are_stored
        """Whether the inbox has them already."""
        self._has_begun = False

    async def settle(self, readings: Sequence[Reading]) -> Answers:
        """Settle them in one database transaction; in halves where it fails on one of them.

        Raises:
            RetryableDatabaseError: there was no connection; nothing was done.
        """
        self._has_begun = False

        async def work(connection: "asyncpg.Connection") -> Answers:
            self._has_begun = True
            return await self._run(connection, readings)

        try:
            return await self._connection.transact(work)
        except Exception as error:
            if not self._has_begun:
                raise
            is_passing = isinstance(error, RetryableDatabaseError)
            kept = keep(error)
            logger.warning(
                "Events go by themselves", error_type=kept.error_type, reason=kept.message
            )
            if is_passing or len(readings) == 1:
                return [None] * len(readings)
        middle = (len(readings) + 1) // 2
        return [*await self.settle(readings[:middle]), *await self.settle(readings[middle:])]

    async def _run(self, connection: "asyncpg.Connection", readings: Sequence[Reading]) -> Answers:
        """In a database transaction that has just begun, and that the caller commits."""
        are_stored = self._are_stored
        stored = [(each.event.livemode, each.event.id) for each in readings if are_stored]
        locked = await lock(connection, readings, stored)
        known = await look_up(connection, readings, is_of_group=self._is_of_group)
        decided = decide(readings, known, locked, self._terms, are_stored=are_stored)
        written = worded(readings, decided, are_stored=are_stored, is_of_group=self._is_of_group)
        if written is not None:
            sql, arguments = written
            await connection.execute(sql, *arguments)
        return [decided.answers.get(place) for place in range(len(readings))]
