"""The batch engine: one a process, started with it, for all its callers."""

import asyncio
import itertools
import random
import uuid
from collections import Counter
from contextlib import AsyncExitStack
from importlib import import_module
from typing import TYPE_CHECKING, Any

import psycopg

from benchmarks.calls.base import AsyncCalls, Refused
from benchmarks.calls.ledger import ACTOR, command_of
from benchmarks.workload import Operation
from src.common.exceptions import ExceptionWithErrorType
from src.common.postgres.engines import database_url
from src.common.settings import get_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

_SPENDS_EACH = 128
_AT_ONCE = 256
"""Of those that restore what was there: the engine refuses more than its queue holds."""
_TAKEN = 3
"""Credits of each spend that is undone: so often it can be undone, by one each time."""


class EngineCalls(AsyncCalls):
    """`await engine.execute(command)`."""

    async def open(self, callers: int) -> None:
        """Start the engine."""
        del callers
        self._stack = AsyncExitStack()
        engine: Any = import_module("src.common.credits.engine.engine").Engine
        self._engine = await self._stack.enter_async_context(engine.from_settings(get_settings()))

    async def close(self) -> None:
        """Drain and stop it."""
        await self._stack.aclose()

    async def call(self, caller: int, operation: Operation) -> bool:
        """Hand the command in and wait for its own outcome."""
        del caller
        try:
            return bool((await self._engine.execute(command_of(operation))).replayed)
        except ExceptionWithErrorType as refusal:
            raise Refused(refusal.error_type) from refusal


class EngineReversals(EngineCalls):
    """Undoing of spends, which are made while nothing is measured, those of all users mixed.

    What it gave back is spent again at its end: `same-rows` knows spends of two lots at most, and
    lots that were opened again with a credit or two would make them draw on more.
    """

    tops_up = False
    replays = False

    async def open(self, callers: int) -> None:
        """Start the engine, and have it spend what will be given back."""
        await super().open(callers)
        user_ids = await asyncio.to_thread(_user_ids)
        self._spends: list[tuple[uuid.UUID, int]] = []
        self._given_back = Counter[uuid.UUID]()
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(self._spend(random.choices(user_ids, k=_SPENDS_EACH)))  # noqa: S311  no secret
        self.unmeasured = len(self._spends)
        self._undone: Iterator[tuple[uuid.UUID, int]] = itertools.chain.from_iterable(
            itertools.repeat(self._spends, _TAKEN)
        )

    async def restore(self) -> None:
        """Spend what was given back."""
        await super().open(1)
        due = iter(self._given_back.items())
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(self._take_each(due))
        self.unmeasured += len(self._given_back)
        await super().close()

    async def _spend(self, user_ids: list[uuid.UUID]) -> None:
        for user_id in user_ids:
            self._spends.append((user_id, await self._take(user_id, _TAKEN)))

    async def _take_each(self, due: "Iterator[tuple[uuid.UUID, int]]") -> None:
        for user_id, amount in due:
            await self._take(user_id, amount)

    async def _take(self, user_id: uuid.UUID, amount: int) -> int:
        key = uuid.uuid4().hex
        return int((await self._engine.spend(user_id, amount, key=key, actor=ACTOR)).seq)

    async def call(self, caller: int, operation: Operation) -> bool:
        """Give one credit back, of the next spend in turn."""
        del caller
        user_id, seq = next(self._undone, (None, 0))
        if user_id is None:
            raise Refused("all that was spent is given back")
        try:
            await self._engine.reverse(
                user_id, seq, amount=1, key=operation.key, actor=ACTOR, reason="not wanted"
            )
        except ExceptionWithErrorType as refusal:
            raise Refused(refusal.error_type) from refusal
        self._given_back[user_id] += 1
        return False


def _user_ids() -> list[uuid.UUID]:
    url = database_url(get_settings(), "postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as connection:
        return [user_id for (user_id,) in connection.execute("SELECT user_id FROM users")]
