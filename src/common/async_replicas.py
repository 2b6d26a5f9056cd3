"""Reads that may lag, for async callers: as `replicas.py`, without blocking the event loop."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import ClassVar, ParamSpec, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.orm import Session

from src.common.async_database import read_from_async_database
from src.common.postgres.disposal import abandon_async, dispose_async
from src.common.postgres.engines import build_async_engine, replica_settings
from src.common.postgres.lagging_reads import (
    Answered,
    MayLag,
    PassedBy,
    PrimaryBecause,
    ReadAfter,
    Source,
    check_replay,
    read_once,
)
from src.common.postgres.replica_lag import Replay, read_replay
from src.common.replicas import answering, counted, from_primary, reaching, work_of
from src.common.settings import Settings, get_settings

P = ParamSpec("P")
T = TypeVar("T")


class _State:
    lock = Lock()
    engine: AsyncEngine | None = None
    settings: Settings | None = None
    abandoned: ClassVar[set[asyncio.Task[None]]] = set()
    """Kept until they have ended, so that they are not collected before."""


def _renew_lock() -> None:
    """In a forked child: another thread of the parent's may have held it."""
    _State.lock = Lock()


os.register_at_fork(after_in_child=_renew_lock)


def get_async_replica_engine() -> AsyncEngine:
    """The process's one async engine for the replica, while the settings stay the same.

    Its connections belong to the event loop that used it.
    """
    with _State.lock:
        settings = get_settings()
        is_known = _State.settings is settings or _State.settings == settings  # fields take long
        if _State.engine is None or not is_known:
            if _State.engine is not None:
                abandon_async(_State.engine)
            _State.engine = build_async_engine(replica_settings(settings), takes_standbys=True)
            _State.settings = settings
        return _State.engine


async def dispose_async_replicas() -> None:
    """Close the connections to the replica; in the event loop that used them."""
    if _State.abandoned:
        await asyncio.wait(_State.abandoned)
    if _State.engine is not None:
        await dispose_async(_State.engine)


@dataclass(frozen=True)
class AsyncReader:
    """As `replicas.Reader`."""

    source: Source = Source.PRIMARY
    after: ReadAfter | None = None

    async def read(
        self, reading: MayLag[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Answered[T]:
        """As `replicas.Reader.read`: the very same readings."""
        work = work_of(reading, *args, **kwargs)
        passed_by: PassedBy | None = None
        if self.source is Source.REPLICA:
            try:
                return counted(await self._ask_replica(work))
            except PassedBy as reason:
                passed_by = reason
        found = await read_from_async_database(work)
        return counted(Answered(found, from_primary(passed_by)))

    async def _ask_replica(self, work: Callable[[Session], T]) -> Answered[T]:
        settings = get_settings()
        with reaching(settings):
            connection, replay = await _reach(settings)
        try:
            told = check_replay(replay, settings.database_replica_lag_max_seconds)
            with answering():
                return Answered(await connection.run_sync(read_once, self.after, work), told)
        except PassedBy as reason:
            if reason.because is PrimaryBecause.NO_STANDBY:
                await connection.invalidate()  # promoted since: another host may be a standby
            raise
        finally:
            await connection.close()


async def read_replay_of_replica() -> Replay:
    """What the replica says about itself.

    Raises:
        PassedBy: there is none, or it does not answer.
    """
    settings = get_settings()
    with reaching(settings):
        connection, replay = await _reach(settings)
        await connection.close()
        return replay


async def _reach(settings: Settings) -> tuple[AsyncConnection, Replay]:
    """A connection to the replica, and what it says; within the time that the settings give each.

    asyncpg waits for a silent server also when it gives up, so nobody waits for that.
    """
    task = asyncio.create_task(_ask(get_async_replica_engine()))
    try:
        patience = settings.database_replica_timeout_seconds * len(settings.replica_addresses)
        await asyncio.wait((task,), timeout=patience)
    except BaseException:
        _abandon(task)
        raise
    if not task.done():
        _abandon(task)
        raise PassedBy(PrimaryBecause.AWAY)
    return task.result()


def _abandon(task: "asyncio.Task[tuple[AsyncConnection, Replay]]") -> None:
    task.cancel()
    closing = asyncio.create_task(_close_what_came(task))
    _State.abandoned.add(closing)
    closing.add_done_callback(_State.abandoned.discard)


async def _close_what_came(task: "asyncio.Task[tuple[AsyncConnection, Replay]]") -> None:
    """The connection of who had it all the same, just before it was cancelled."""
    await asyncio.wait((task,))
    if not task.cancelled() and task.exception() is None:
        connection, _ = task.result()
        await connection.close()


async def _ask(engine: AsyncEngine) -> tuple[AsyncConnection, Replay]:
    connection = await engine.connect()
    try:
        return connection, await connection.run_sync(read_replay)
    except BaseException:
        await connection.close()
        raise
