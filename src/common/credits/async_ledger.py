"""The ledger for async applications: the functions of `ledger.py`, for an `AsyncSession`.

    async with get_async_db() as db, db.begin():
        await async_ledger.spend(db, user_id, 30, key=f"slides:{job_id}")

Each takes an `AsyncSession` in place of a `Session`. Its other parameters, its result and its
errors are those of its namesake in `ledger.py`. There is no second implementation: it runs the sync
function on the session inside (`AsyncSession.run_sync`).
"""

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from src.common.credits import ledger

P = ParamSpec("P")
T = TypeVar("T")


def _async(
    operation: Callable[Concatenate[Session, P], T],
) -> Callable[Concatenate[AsyncSession, P], Coroutine[Any, Any, T]]:
    async def run(session: AsyncSession, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await session.run_sync(operation, *args, **kwargs)

    run.__name__ = run.__qualname__ = operation.__name__
    run.__doc__ = operation.__doc__
    return run


grant = _async(ledger.grant)
spend = _async(ledger.spend)
adjust = _async(ledger.adjust)
open_hold = _async(ledger.open_hold)
capture = _async(ledger.capture)
release = _async(ledger.release)
renew = _async(ledger.renew)
reverse = _async(ledger.reverse)
execute = _async(ledger.execute)
execute_each = _async(ledger.execute_each)
expire_due = _async(ledger.expire_due)
lock_users = _async(ledger.lock_users)
balance = _async(ledger.balance)
history = _async(ledger.history)
preview = _async(ledger.preview)
explain = _async(ledger.explain)
