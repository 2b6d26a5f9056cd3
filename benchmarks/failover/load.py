"""The load's process: a few callers by every way in, until SIGTERM.

python -m benchmarks.failover.load RECORD USER_ID…      (started by the harness)

Whatever is not acknowledged is tried again with its key until it is, as a good client does. At
SIGTERM nothing new is begun, and what was begun is finished.
"""

import asyncio
import itertools
import os
import random
import signal
import sys
import uuid
from contextlib import AsyncExitStack
from pathlib import Path

import httpx

from benchmarks.failover.operations import PURCHASE, Operation, Record
from benchmarks.failover.ways import (
    API_URL,
    PURCHASED,
    AsyncLibrary,
    BatchEngine,
    DocumentOrm,
    Http,
    NotNow,
    SyncLibrary,
    Way,
    Webhook,
)
from src.common.async_database import dispose_async_db
from src.common.credits.engine.engine import Engine
from src.common.settings import get_settings

CALLERS_EACH = 3
PAUSE_SECONDS = 0.12
RETRY_SECONDS = 0.2
FINISH_SECONDS = 120.0
"""How long what was begun may take once nothing new is begun."""


class Load:
    """All callers of one run."""

    def __init__(self, record: Record, user_ids: list[str]) -> None:
        self._record = record
        self._user_ids = user_ids
        self._is_ending = asyncio.Event()

    def end(self) -> None:
        """Begin nothing new."""
        self._is_ending.set()

    async def run(self, ways: list[Way]) -> None:
        """Ask by all ways until the end."""
        callers = [
            asyncio.create_task(self._call(way)) for way in ways for _ in range(CALLERS_EACH)
        ]
        await self._is_ending.wait()
        _, left = await asyncio.wait(callers, timeout=FINISH_SECONDS)
        for each in left:
            each.cancel()
        await asyncio.gather(*callers, return_exceptions=True)

    async def _call(self, way: Way) -> None:
        hold: tuple[str, int] | None = None
        for kind in itertools.cycle(way.kinds):
            if self._is_ending.is_set():
                return
            if kind in ("capture", "release"):
                if hold is None:
                    continue
                user_id, hold_seq = hold
            else:
                user_id, hold_seq = random.choice(self._user_ids), None  # noqa: S311  no secret
            operation = _operation(way.name, kind, user_id, hold_seq)
            seq = await self._until_acknowledged(way, operation)
            hold = (user_id, seq) if kind == "hold" and seq is not None else None
            await asyncio.sleep(PAUSE_SECONDS)

    async def _until_acknowledged(self, way: Way, operation: Operation) -> int | None:
        for tries in itertools.count(1):
            try:
                seq = await way.ask(operation)
            except NotNow:
                await self._pause(operation, tries)
            except asyncio.CancelledError:
                self._record.give_up(operation, tries)
                raise
            except Exception as error:  # noqa: BLE001  whatever it is, it is reported
                self._record.give_up(operation, tries, f"{type(error).__name__}: {error}"[:500])
                return None
            else:
                self._record.note(operation, tries, seq)
                return seq
        return None

    async def _pause(self, operation: Operation, tries: int) -> None:
        try:
            await asyncio.sleep(RETRY_SECONDS)
        except asyncio.CancelledError:
            self._record.give_up(operation, tries)
            raise


def _operation(way: str, kind: str, user_id: str, hold_seq: int | None) -> Operation:
    name = uuid.uuid4().hex
    key = f"cs_test_{name}" if kind == PURCHASE else f"load:{name}"
    amount = PURCHASED if kind == PURCHASE else 2
    return Operation(way, kind, user_id, key, amount, hold_seq)


async def main(record: Record, user_ids: list[str]) -> None:
    """Run the load until SIGTERM."""
    load = Load(record, user_ids)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, load.end)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=os.environ[API_URL]))
        engine = await stack.enter_async_context(Engine.from_settings(get_settings()))
        stack.push_async_callback(dispose_async_db)
        ways: list[Way] = [
            *(Http(client), Webhook(client), SyncLibrary(), AsyncLibrary()),
            *(BatchEngine(engine), DocumentOrm()),
        ]
        await load.run(ways)


if __name__ == "__main__":
    written, *users = sys.argv[1:]
    with Path(written).open("a") as file:
        asyncio.run(main(Record(file), users))
