"""credit-ledger (Apache-2.0): a guarded UPDATE and a row with a unique key, in threads."""

import os
from importlib import import_module
from typing import Any

import psycopg
from sqlalchemy import create_engine

from benchmarks.calls.base import ThreadCalls
from benchmarks.seed import user_ids
from benchmarks.workload import RESERVE, Operation
from src.common.postgres.engines import database_url
from src.common.settings import get_settings

# The tables its `schema.sql` describes; its row-level security is left out, which is faster.
_SCHEMA = """
    CREATE TABLE tenants (id uuid PRIMARY KEY);
    CREATE TABLE credit_balance (
        tenant_id uuid PRIMARY KEY REFERENCES tenants ON DELETE CASCADE,
        credits numeric(18, 4) NOT NULL DEFAULT 0,
        updated_at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE credit_ledger (
        id uuid PRIMARY KEY,
        tenant_id uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
        delta numeric(18, 4) NOT NULL,
        reason varchar(120) NOT NULL DEFAULT 'usage',
        idempotency_key varchar(200),
        balance_after numeric(18, 4),
        created_at timestamptz NOT NULL DEFAULT now(),
        UNIQUE (tenant_id, idempotency_key));
    CREATE INDEX ON credit_ledger (tenant_id);
"""


def prepare(admin: psycopg.Connection, url: str, user_count: int) -> None:
    """Make its tables and users with credits."""
    os.environ.pop("DATABASE_URL", None)
    metering: Any = import_module("credit_ledger.metering")
    admin.execute(_SCHEMA)
    engine = create_engine(url)
    for user_id in user_ids(user_count):
        admin.execute("INSERT INTO tenants VALUES (%s)", [user_id])
        metering.grant(str(user_id), RESERVE, idempotency_key="seed", engine=engine)
    engine.dispose()


class CreditLedger(ThreadCalls):
    """`metering.decrement(tenant, amount, idempotency_key=…, engine=…)`."""

    tops_up = False

    def open(self, callers: int) -> None:
        """Make an engine that has a connection for every thread."""
        self._metering: Any = import_module("credit_ledger.metering")
        url = database_url(get_settings())
        self._engine = create_engine(url, pool_size=callers, max_overflow=0)

    def close(self) -> None:
        """Close the pool."""
        self._engine.dispose()

    def call(self, caller: int, operation: Operation) -> bool:
        """Take the credits.

        Raises:
            RuntimeError: it refused, which no operation here gives it a reason to.
        """
        del caller
        charge = self._metering.decrement(
            str(operation.user_id),
            operation.amount,
            idempotency_key=operation.key,
            engine=self._engine,
        )
        if not charge.ok:
            raise RuntimeError(f"credit-ledger refused {operation}")
        return bool(charge.deduped)
