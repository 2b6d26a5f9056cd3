"""The ledger for applications: one function an operation, inside the caller's database transaction.

    with SessionLocal.begin() as db:
        ledger.spend(db, user_id, 30, key=f"slides:{job_id}", actor="system:renderer")

Every function locks the user's row, decides, writes, and never commits: if the caller rolls back,
nothing happened. A repeated key gives the first result again, marked `replayed`. Async callers find
the same functions in `src.common.credits.async_ledger`.
"""

import datetime as dt
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Concatenate, ParamSpec

from sqlalchemy.orm import Session

from src.common.credits import operations, requests
from src.common.credits.domain.arguments import check_instant, check_user_ids
from src.common.credits.domain.commands import Command, Result
from src.common.credits.domain.decisions import Outcome
from src.common.credits.due import expire_due
from src.common.credits.persistence import storage
from src.common.credits.queries import balance, explain, history, preview

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


def execute(
    session: Session, commands: Sequence[Command], *, now: dt.datetime | None = None
) -> list[Result]:
    """Do all of `commands`, for one or many users, as one atomic step; results in their order.

    Locks every user concerned in `user_id` order. A refusal does nothing at all. `now` replaces the
    database's clock, in tests.

    Raises:
        ExceptionWithErrorType: the first refusal; VALIDATION_ERROR, `commands` are no commands.
        RetryableDatabaseError: a passing condition of the database.
    """
    return operations.execute(session, requests.of_callers(commands), now=_checked(now))


def execute_each(
    session: Session, commands: Sequence[Command], *, now: dt.datetime | None = None
) -> list[Outcome]:
    """Do each of `commands` on its own, in one database transaction: a result or a refusal each.

    Raises:
        Invalid: VALIDATION_ERROR, `commands` are no commands.
        RetryableDatabaseError: a passing condition of the database.
    """
    return operations.execute_each(session, requests.of_callers(commands), now=_checked(now))


def lock_users(session: Session, user_ids: Iterable[uuid.UUID]) -> None:
    """Lock users' rows in `user_id` order until the database transaction ends.

    A caller who will change several users in several calls locks them all first.

    Raises:
        Invalid: VALIDATION_ERROR, `user_ids` are no UUIDs.
        RetryableDatabaseError: a passing condition of the database.
    """
    storage.lock_users(session, check_user_ids(user_ids))


def _checked(now: dt.datetime | None) -> dt.datetime | None:
    return None if now is None else check_instant("now", now)


grant = _operation(requests.grant)
spend = _operation(requests.spend)
adjust = _operation(requests.adjust)
open_hold = _operation(requests.open_hold)
capture = _operation(requests.capture)
release = _operation(requests.release)
renew = _operation(requests.renew)
