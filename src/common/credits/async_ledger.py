"""The ledger for async applications: the functions of `ledger.py`, for an `AsyncSession`.

    async with get_async_db() as db, db.begin():
        await async_ledger.spend(db, user_id, 30, key=f"slides:{job_id}")

Each takes an `AsyncSession` in place of a `Session`. Its other parameters, its result and its
errors are those of its namesake in `ledger.py`. There is no second implementation: it runs the sync
function on the session inside (`AsyncSession.run_sync`).
"""

from src.common.credits import ledger
from src.common.postgres.async_functions import for_async_session

grant = for_async_session(ledger.grant)
spend = for_async_session(ledger.spend)
adjust = for_async_session(ledger.adjust)
open_hold = for_async_session(ledger.open_hold)
capture = for_async_session(ledger.capture)
release = for_async_session(ledger.release)
renew = for_async_session(ledger.renew)
reverse = for_async_session(ledger.reverse)
execute = for_async_session(ledger.execute)
execute_each = for_async_session(ledger.execute_each)
expire_due = for_async_session(ledger.expire_due)
lock_users = for_async_session(ledger.lock_users)
balance = for_async_session(ledger.balance)
history = for_async_session(ledger.history)
preview = for_async_session(ledger.preview)
explain = for_async_session(ledger.explain)
