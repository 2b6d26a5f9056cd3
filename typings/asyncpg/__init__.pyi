# What is used of asyncpg without SQLAlchemy in between; it brings no types of its own.

from asyncio import BaseTransport
from collections.abc import Callable, Sequence
from typing import Any

class PostgresError(Exception):
    sqlstate: str | None

class InFailedSQLTransactionError(PostgresError): ...
class InterfaceError(Exception): ...
class InternalClientError(Exception): ...
class TargetServerAttributeNotMatched(InternalClientError): ...

class PostgresLogMessage:
    server_source_function: str | None

class Connection:
    _transport: BaseTransport
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def add_log_listener(
        self, callback: Callable[[Connection, PostgresLogMessage], None]
    ) -> None: ...
    async def execute(
        self,
        query: str,
        *args: object,
        timeout: float | None = ...,  # noqa: ASYNC109  asyncpg's own
    ) -> str: ...
    async def fetch(
        self,
        query: str,
        *args: object,
        timeout: float | None = ...,  # noqa: ASYNC109  asyncpg's own
    ) -> list[Sequence[Any]]: ...
    async def close(self) -> None: ...
    def is_closed(self) -> bool: ...
    def terminate(self) -> None: ...

async def connect(dsn: str | None = None, **parameters: Any) -> Connection: ...
