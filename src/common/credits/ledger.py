"""The ledger for applications: one function an operation, inside the caller's database transaction.

    with SessionLocal.begin() as db:
        ledger.spend(db, user_id, 30, key=f"slides:{job_id}", actor="system:renderer")

Every function locks the user's row, decides, writes, and never commits: if the caller rolls back,
nothing happened. A repeated key gives the first result again, marked `replayed`. Async callers find
the same functions in `src.common.credits.async_ledger`.
"""

from collections.abc import Callable
from typing import Concatenate, ParamSpec

from sqlalchemy.orm import Session

from src.common.credits import requests
from src.common.credits.commands import Command, Result
from src.common.credits.due import expire_due
from src.common.credits.operations import execute, execute_each
from src.common.credits.queries import balance, explain, history, preview
from src.common.credits.storage import lock_users

__all__ = [
    "adjust",
    "balance",
    "capture",
    "execute",
    "execute_each",
    "expire_due",
    "explain",
    "grant",
    "history",
    "lock_users",
    "open_hold",
    "preview",
    "release",
    "renew",
    "spend",
]

P = ParamSpec("P")


def _operation(
    word: Callable[P, Command],
) -> Callable[Concatenate[Session, P], Result]:
    """The command that `word` makes of its arguments, done in the caller's database transaction."""

    def run(session: Session, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        return execute(session, [word(*args, **kwargs)])[0]

    run.__name__ = run.__qualname__ = word.__name__
    run.__doc__ = word.__doc__
    return run


grant = _operation(requests.grant)
spend = _operation(requests.spend)
adjust = _operation(requests.adjust)
open_hold = _operation(requests.open_hold)
capture = _operation(requests.capture)
release = _operation(requests.release)
renew = _operation(requests.renew)
