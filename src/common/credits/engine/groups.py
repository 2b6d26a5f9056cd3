"""The batch engine where groups of users have schemas: lanes for each group that is busy.

Callers see one engine. Whose group a user's is, is looked up once. The groups' lanes take their
connections from one pool, and keep them until another group's lane waits for one. What may wait is
counted over all groups.
"""

import contextvars
import uuid
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Self

from sqlalchemy.ext.asyncio import AsyncEngine

from src.common.credits.domain import errors
from src.common.credits.domain.commands import Command, Result
from src.common.credits.engine.engine import Engine
from src.common.credits.engine.queue import Room
from src.common.postgres.routes import routed_to_schema, unrouted
from src.common.settings import Settings
from src.common.sharding import directory
from src.common.sharding.known_routes import KnownRoutes

if TYPE_CHECKING:
    import asyncio

    from sqlalchemy import PoolProxiedConnection
    from sqlalchemy.pool import QueuePool

_Asked = tuple[Command, "asyncio.Future[Result]"]


class SharedConnections:
    """The one pool of all lanes."""

    def __init__(self, engine: AsyncEngine, holders: "GroupsEngine") -> None:
        self._engine = engine
        self._holders = holders

    @property
    def pool(self) -> "QueuePool":
        """As of an engine."""
        pool: QueuePool = self._engine.pool  # type: ignore[assignment]  # as `engines.py` makes it
        return pool

    @property
    def are_all_taken(self) -> bool:
        """Whether whoever wants a connection has to wait for one."""
        return self.pool.checkedout() >= self.pool.size()

    async def raw_connection(self) -> "PoolProxiedConnection":
        """As of an engine. Who keeps one and does nothing gives it back, if there is none left."""
        if self.are_all_taken:
            self._holders.give_back_idle()
        return await self._engine.raw_connection()

    async def find_groups(self, user_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, str]:
        """Of which group each user is; those whom nobody knows are missing."""
        if self.are_all_taken:
            self._holders.give_back_idle()
        with unrouted():
            async with self._engine.connect() as connection:
                return await connection.run_sync(partial(directory.groups_of, user_ids=user_ids))

    @property
    def lanes_working(self) -> int:
        """How many lanes of all groups have a batch that does not hang."""
        return self._holders.lanes_working

    async def dispose(self) -> None:
        """As of an engine."""
        await self._engine.dispose()


class _GroupEngine(Engine):
    """The queue of one group, and its lanes."""

    def __init__(self, connections: SharedConnections, settings: Settings, room: Room) -> None:
        super().__init__(connections, settings, room)
        self._shared = connections

    @property
    def has_to_share(self) -> bool:
        """Whether a lane of another group may wait for a connection."""
        return self._shared.are_all_taken

    @property
    def may_work_beside(self) -> bool:
        """Not where other groups' lanes keep the server busy: a half each would cost more."""
        return self._shared.lanes_working < len(self._lanes)

    def add(self, command: Command, answer: "asyncio.Future[Result]") -> None:
        """As of its queue."""
        self._queue.add(command, answer)

    def clear_of_given_up(self) -> None:
        """As of its queue."""
        self._queue.clear_of_given_up()


class GroupsEngine(Engine):
    """As `Engine`, for the users of all groups. It has no lanes of its own."""

    def __init__(self, connections: AsyncEngine, settings: Settings) -> None:
        self._settings = settings
        self._room = Room(settings.credits_engine_queue_max)
        self._shared = SharedConnections(connections, self)
        super().__init__(self._shared, settings, self._room)
        self._lanes.clear()
        self._entrance = self
        self._groups: dict[str, _GroupEngine] = {}
        self._known = KnownRoutes()
        self._looked_up: dict[uuid.UUID, list[_Asked]] = {}
        """What waits until it is known of which group its user is."""
        self._is_looking_up = False
        self._context = contextvars.copy_context()

    async def __aenter__(self) -> Self:
        # Lanes outlive whoever asks first for their group: they take over nobody's context.
        self._context = contextvars.copy_context()
        return await super().__aenter__()

    async def finish(self) -> None:
        """Refuse new operations, and finish those that wait."""
        await super().finish()
        for group in self._groups.values():
            await group.finish()
        self._groups.clear()

    def leave_to_parent(self) -> None:
        """In a forked child: nobody here is answered."""
        super().leave_to_parent()
        for group in self._groups.values():
            group.leave_to_parent()

    def give_back_idle(self) -> None:
        """Have lanes that do nothing give their connections back."""
        for group in self._groups.values():
            group.give_back_idle()

    @property
    def lanes_working(self) -> int:
        """How many lanes of all groups have a batch that does not hang."""
        return sum(group.lanes_working for group in self._groups.values())

    @property
    def length(self) -> int:
        """How many operations somebody awaits."""
        return self._room.length

    def note_given_up(self) -> None:
        """Nobody awaits an operation any more: there is room for another at once."""
        self._room.length -= 1
        for group in self._groups.values():
            group.clear_of_given_up()

    def add(self, command: Command, answer: "asyncio.Future[Result]") -> None:
        """Put a command into the queue of its user's group, once that is known.

        Raises:
            EngineBusy: ENGINE_BUSY.
        """
        self._queue.refuse_if_full()
        group = self._known.get(command.user_id)
        if group is not None:
            self._of(group).add(command, answer)
            return
        self._room.length += 1
        self._looked_up.setdefault(command.user_id, []).append((command, answer))
        if not self._is_looking_up:
            self._is_looking_up = True
            self._start(self._look_up())

    async def _look_up(self) -> None:
        """Find the groups of those who wait, all at once, until nobody waits."""
        while user_ids := list(self._looked_up):
            try:
                found = await self._shared.find_groups(user_ids)
            except Exception as error:  # noqa: BLE001  the callers' edge: each gets the error
                for user_id in user_ids:
                    self._refuse(self._looked_up.pop(user_id), error)
                continue
            self._known.note(found)
            for user_id in user_ids:
                self._hand_over(self._looked_up.pop(user_id), found.get(user_id))
        self._is_looking_up = False

    def _hand_over(self, asked: list[_Asked], group: str | None) -> None:
        """To the queue of the user's group, in the order asked: nobody came between."""
        if group is None:
            self._refuse(asked, errors.user_not_found())
            return
        for command, answer in asked:
            if not answer.done():  # who was given up has made room already
                self._room.length -= 1
                self._of(group).add(command, answer)

    def _refuse(self, asked: list[_Asked], error: Exception) -> None:
        for _, answer in asked:
            if not answer.done():
                self._room.length -= 1
                answer.set_exception(error)

    def _of(self, group: str) -> _GroupEngine:
        engine = self._groups.get(group)
        if engine is None:
            engine = self._groups[group] = self._context.copy().run(self._opened, group)
        return engine

    def _opened(self, group: str) -> _GroupEngine:
        with routed_to_schema(group):
            engine = _GroupEngine(self._shared, self._settings, self._room)
            engine.open()
        return engine
