"""hf-nostro: lots, append-only entries and triggers in stored functions; its async client."""

import uuid
from importlib import import_module
from typing import Any

import psycopg

from benchmarks.calls.base import AsyncCalls
from benchmarks.seed import user_ids
from benchmarks.workload import RESERVE, Operation
from src.common.postgres.engines import database_url
from src.common.settings import get_settings

_CONNECTIONS_MAX = 10


def prepare(admin: psycopg.Connection, url: str, user_count: int) -> None:
    """Make its tables and users with credits."""
    del admin
    dsn = _dsn(url)
    nostro: Any = import_module("nostro")
    import_module("nostro.migrate").migrate(dsn=dsn, scale=0)
    ledger = nostro.Ledger(dsn=dsn, scale=0)
    for user_id in user_ids(user_count):
        account = ledger.accounts.get_or_create("benchmark", str(user_id))
        ledger.credit(account, ledger.amount(RESERVE), category="seed", idempotency_key="seed")
    ledger.close()


class Nostro(AsyncCalls):
    """`ledger.debit(account_id, amount, category=…, idempotency_key=…)`."""

    tops_up = False

    async def open(self, callers: int) -> None:
        """Open its client on a pool, and read the accounts' ids, which it says are the cheapest."""
        dsn = _dsn(database_url(get_settings()).render_as_string(hide_password=False))
        size = min(callers, _CONNECTIONS_MAX)
        pools: Any = import_module("psycopg_pool")
        self._pool = pools.AsyncConnectionPool(dsn, min_size=size, max_size=size, open=False)
        await self._pool.open(wait=True)
        async with self._pool.connection() as connection:
            rows = await connection.execute("SELECT scope_ref, id FROM nostro.account")
            self._accounts = {uuid.UUID(ref): id_ for ref, id_ in await rows.fetchall()}
        nostro: Any = import_module("nostro")
        self._ledger = nostro.AsyncLedger(pool=self._pool, scale=0)

    async def close(self) -> None:
        """Close the pool."""
        await self._pool.close()

    async def call(self, caller: int, operation: Operation) -> bool:
        """Take the credits."""
        del caller
        entry = await self._ledger.debit(
            self._accounts[operation.user_id],
            self._ledger.amount(operation.amount),
            category="spend",
            idempotency_key=operation.key,
        )
        return bool(entry.replayed)


def _dsn(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")
