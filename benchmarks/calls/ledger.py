"""The ledger's operations, each in a database transaction of its own: threads, and tasks."""

from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from benchmarks.calls.base import AsyncCalls, Refused, ThreadCalls
from benchmarks.workload import Operation
from src.common.async_database import (
    dispose_async_db,
    init_async_db,
    run_in_async_database_transaction,
)
from src.common.credits import ledger
from src.common.credits.domain.commands import Command, Grant, Spend
from src.common.database import dispose_db, init_db, run_in_database_transaction
from src.common.exceptions import ExceptionWithErrorType

ACTOR = "system:benchmark"


def command_of(operation: Operation) -> Command:
    """Return the operation as the ledger takes it."""
    user_id, amount, key = operation
    if amount < 0:
        return Grant(user_id=user_id, key=key, actor=ACTOR, amount=-amount)
    return Spend(user_id=user_id, key=key, actor=ACTOR, amount=amount)


def _do(session: Session, operation: Operation) -> bool:
    return ledger.execute(session, [command_of(operation)])[0].replayed


class LedgerSync(ThreadCalls):
    """`ledger.execute` on a sync session (psycopg)."""

    def open(self, callers: int) -> None:
        """Connect with the settings' pool."""
        del callers
        init_db()

    def close(self) -> None:
        """Close the pool."""
        dispose_db()

    def call(self, caller: int, operation: Operation) -> bool:
        """Do and commit one operation."""
        del caller
        try:
            return run_in_database_transaction(lambda session: _do(session, operation))
        except ExceptionWithErrorType as refusal:
            raise Refused(refusal.error_type) from refusal
        except PoolTimeoutError as error:
            raise Refused("no connection free in time") from error


class LedgerAsync(AsyncCalls):
    """The same on an async session (asyncpg)."""

    async def open(self, callers: int) -> None:
        """Connect with the settings' pool."""
        del callers
        await init_async_db()

    async def close(self) -> None:
        """Close the pool."""
        await dispose_async_db()

    async def call(self, caller: int, operation: Operation) -> bool:
        """Do and commit one operation."""
        del caller
        try:
            return await run_in_async_database_transaction(lambda session: _do(session, operation))
        except ExceptionWithErrorType as refusal:
            raise Refused(refusal.error_type) from refusal
        except PoolTimeoutError as error:
            raise Refused("no connection free in time") from error
