"""Events as they arrive over HTTP: whoever waits meanwhile travels together in the next batch.

As the ledger's engine does (decision 0017): no timer, so that an event alone goes at once. What
cannot travel is stored and settled by itself, as ever (`processing.py`).
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy.ext.asyncio import AsyncEngine

from src.common import tracing
from src.common.credits.engine.connection import EngineConnection
from src.common.database_settings import DatabasePooler, Sharding
from src.common.postgres.engines import begin_look_ups
from src.common.postgres.routes import routed_to_schema
from src.common.postgres.shared_statements import NotAnswered
from src.common.settings import Settings
from src.common.stripe.batches.readings import Reading, apart, read
from src.common.stripe.batches.settling import Together
from src.common.stripe.batches.whose import NOBODYS, GroupsOfEvents, whose_is
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.processing import Processor, terms_of
from src.common.stripe.wire import AnyEvent

if TYPE_CHECKING:
    from opentelemetry.trace import Span

EVENTS_MAX = 64
"""How many travel together at most."""


class _Waiting(NamedTuple):
    reading: Reading
    answer: "asyncio.Future[EventAnswer | None]"
    caller: "Span | None"
    """Whose span was current where it arrived; None while tracing is off."""


class Arrivals:
    """Where the events of one process arrive; those of different groups of users travel apart."""

    def __init__(self, engine_of: Callable[[], AsyncEngine], settings: Settings) -> None:
        self._engine_of = engine_of
        self._settings = settings
        self._is_sharded = settings.sharding is not Sharding.NONE
        is_pooled = settings.database_pooler is not DatabasePooler.NONE
        self._groups = GroupsOfEvents(engine_of, begin_look_ups(settings) if is_pooled else None)
        self._lanes: dict[str | None, _Lane] = {}

    async def receive(self, processor: Processor, event: AnyEvent, body: bytes) -> EventAnswer:
        """Store and settle an event, as `Processor.receive` does.

        Raises:
            Exception: whatever kept it from being stored; then Stripe must send it again.
        """
        reading = await read(event, body, self._settings)
        answer = None if reading is None else await self._settled(reading)
        return answer or await processor.receive(event, body)

    async def aclose(self) -> None:
        """Wait for what is under way."""
        for lane in self._lanes.values():
            await lane.aclose()

    async def _settled(self, reading: Reading) -> EventAnswer | None:
        """Settle it with others; None where it has to go by itself."""
        group = await self._group_of(reading) if self._is_sharded else None
        if group is None and self._is_sharded:
            return None
        if group not in self._lanes:
            self._lanes[group] = _Lane(self._engine_of, self._settings, group)
        return await self._lanes[group].settled(reading)

    async def _group_of(self, reading: Reading) -> str | None:
        whose = whose_is(reading)
        if whose == NOBODYS:
            return None
        with suppress(NotAnswered):
            return await self._groups.read(whose)
        return None


class _Lane:
    """Where the events of one group arrive, or all; one batch is under way at a time."""

    def __init__(
        self, engine_of: Callable[[], AsyncEngine], settings: Settings, group: str | None
    ) -> None:
        self._engine_of = engine_of
        self._settings = settings
        self._group = group
        self._waiting: list[_Waiting] = []
        self._working: asyncio.Task[None] | None = None

    async def aclose(self) -> None:
        if self._working is not None:
            await self._working

    async def settled(self, reading: Reading) -> EventAnswer | None:
        answer: asyncio.Future[EventAnswer | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(reading, answer, tracing.current_span()))
        if self._working is None:
            # Not in the context of who came first: its request is not the others'.
            self._working = asyncio.create_task(self._work(), context=Context())
        return await answer

    async def _work(self) -> None:
        """Settle all who wait, and those who come meanwhile, then give the connection back."""
        connection: EngineConnection | None = None
        try:
            with routed_to_schema(self._group):
                connection = EngineConnection(self._engine_of(), begin_look_ups(self._settings))
                together = Together(
                    connection,
                    terms_of(self._settings),
                    are_stored=False,
                    is_of_group=self._group is not None,
                )
                while self._waiting:
                    await _settle(together, self._take())
        except BaseException as error:
            _fail(self._waiting, error)  # nobody else would tell them
            self._waiting = []
            if not isinstance(error, Exception):
                raise
        finally:
            self._working = None
            if connection is not None:
                connection.close()

    def _take(self) -> list[_Waiting]:
        """Those of different names; who shares one waits for the next batch."""
        waiting = self._waiting
        taken, left = apart([each.reading for each in waiting], EVENTS_MAX)
        self._waiting = [waiting[place] for place in left]
        return [waiting[place] for place in taken]


async def _settle(together: Together, batch: list[_Waiting]) -> None:
    """Tell everybody their answer, or why there was none."""
    callers = [each.caller for each in batch if each.caller is not None]
    made = tracing.begin("webhook batch", callers, events=len(batch))
    try:
        answers = await together.settle([each.reading for each in batch])
    except BaseException as error:
        if made is not None:
            tracing.fail(made, error)
        _fail(batch, error)
        if not isinstance(error, Exception):
            raise
        return
    finally:
        if made is not None:
            made.end()
    for each, answer in zip(batch, answers, strict=True):
        if not each.answer.done():
            each.answer.set_result(answer)


def _fail(batch: list[_Waiting], error: BaseException) -> None:
    for each in batch:
        if not each.answer.done():
            each.answer.set_exception(error)
