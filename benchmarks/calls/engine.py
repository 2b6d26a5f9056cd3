"""The batch engine: one a process, started with it, for all its callers."""

from contextlib import AsyncExitStack
from importlib import import_module
from typing import Any

from benchmarks.calls.base import AsyncCalls, Refused
from benchmarks.calls.ledger import command_of
from benchmarks.workload import Operation
from src.common.exceptions import ExceptionWithErrorType
from src.common.settings import get_settings


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
