"""The document's purchase ("Transactions with Multiple Operations") where no ledger books it.

On the document's own models, and its statements alone, on the driver. The same code on our models
is in `orm_purchase.py`: importing those makes the ledger listen to every session.
"""

import sys
import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from benchmarks.calls.base import AsyncCalls
from benchmarks.document_models import Transaction, User
from benchmarks.workload import Operation
from src.common.postgres.engines import ASYNC_DRIVER, database_url
from src.common.settings import get_settings

AMOUNT_PAID_CENTS = 5
_LEDGER = "src.common.credits.operations"
_POOL_SIZE, _MAX_OVERFLOW = 20, 10  # the document's

Sessions = Callable[[], AbstractAsyncContextManager[AsyncSession]]


async def purchase(
    sessions: Sessions, user_model: Any, transaction_model: Any, operation: Operation
) -> None:
    """Lock the user, add the credits and the transaction record."""
    user_id, credits_, _ = operation
    async with sessions() as db:  # noqa: SIM117  as the document writes it
        async with db.begin():
            result = await db.execute(
                select(user_model)
                .with_for_update()  # Row-level lock
                .where(user_model.user_id == user_id)
            )
            user = result.scalar_one()

            # Update user credits
            user.credits_balance += credits_

            # Create transaction record
            transaction = transaction_model(
                user_id=user.user_id,
                stripe_session_id=f"cs_{uuid.uuid4()}",
                amount_paid_cents=AMOUNT_PAID_CENTS,
                credits_added=credits_,
            )
            db.add(transaction)

            # Both operations commit together


class Purchases(AsyncCalls):
    """An operation is a purchase of as many credits. It has no key, so no replays."""

    tops_up = False
    replays = False


class PlainPurchase(Purchases):
    """On the document's models and an engine of SQLAlchemy's, in a process without our ledger."""

    async def open(self, callers: int) -> None:
        """Connect with the document's pool."""
        del callers
        self._engine = create_async_engine(
            database_url(get_settings(), ASYNC_DRIVER),
            pool_size=_POOL_SIZE,
            max_overflow=_MAX_OVERFLOW,
        )
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)

    async def close(self) -> None:
        """Close the pool.

        Raises:
            RuntimeError: the ledger was loaded after all, and listened to these sessions too.
        """
        await self._engine.dispose()
        if _LEDGER in sys.modules:
            raise RuntimeError(f"{_LEDGER} was loaded: this was not plain SQLAlchemy.")

    async def call(self, caller: int, operation: Operation) -> bool:
        """Run the document's code."""
        del caller
        await purchase(self._sessions, User, Transaction, operation)
        return False


class RawPurchase(Purchases):
    """The same statements on asyncpg, prepared: what the database and the driver cost."""

    async def open(self, callers: int) -> None:
        """Connect once for every caller."""
        url = database_url(get_settings(), "postgresql").render_as_string(hide_password=False)
        self._connections = [await asyncpg.connect(url) for _ in range(callers)]

    async def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            await connection.close()

    async def call(self, caller: int, operation: Operation) -> bool:
        """Send the document's five statements."""
        user_id, credits_, _ = operation
        connection = self._connections[caller]
        await connection.execute("BEGIN")
        [user] = await connection.fetch(
            "SELECT credits_balance, * FROM users WHERE user_id = $1 FOR UPDATE", user_id
        )
        await connection.execute(
            "UPDATE users SET credits_balance = $2, updated_at = now() WHERE user_id = $1",
            *(user_id, user[0] + credits_),
        )
        await connection.execute(
            "INSERT INTO transactions (transaction_id, user_id, stripe_session_id,"
            " amount_paid_cents, credits_added) VALUES ($1, $2, $3, $4, $5)",
            *(uuid.uuid4(), user_id, f"cs_{uuid.uuid4()}", AMOUNT_PAID_CENTS, credits_),
        )
        await connection.execute("COMMIT")
        return False
