"""The ledger for applications: one function an operation, inside the caller's database transaction.

    with SessionLocal.begin() as db:
        ledger.spend(db, user_id, 30, key=f"slides:{job_id}", actor="system:renderer")

`grant`, `spend`, `adjust`, `open_hold`, `capture`, `release`, `renew` and `reverse` take a
`Session` and then the parameters of their namesakes in `requests.py`, which also says what they
raise. Each locks the user's row, decides and writes. It never commits: if the caller rolls back,
nothing happened. A repeated key gives the first result again, marked `replayed`.

`balance`, `history`, `preview` and `explain` read. They neither lock nor write.

Any of them may raise RetryableDatabaseError: a lock was not granted in time, a deadlock, a server
out of reach. `src.common.database.run_in_database_transaction` tries again where that may help.
A session in AUTOCOMMIT is refused with Invalid, DATABASE_TRANSACTION_REQUIRED.

Async callers find the same functions in `src.common.credits.async_ledger`.
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
    "reverse",
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
    """Do several commands, of one or many users: all of them or none.

    They are done in the order given. All users are locked first, in `user_id` order, so that two
    callers cannot deadlock.

    Args:
        session: In a database transaction of the caller's.
        commands: What to do, as the functions of `requests.py` make it.
        now: Replaces the database's clock, in tests.

    Returns:
        A result for each command, in their order.

    Raises:
        ExceptionWithErrorType: The first refusal; nothing was done. VALIDATION_ERROR, one of
            `commands` is no command.
        RetryableDatabaseError: A passing condition of the database.
    """
    return operations.execute(session, requests.of_callers(commands), now=_checked(now))


def execute_each(
    session: Session, commands: Sequence[Command], *, now: dt.datetime | None = None
) -> list[Outcome]:
    """Do several commands in one database transaction, each whether or not others are refused.

    Args:
        session: In a database transaction of the caller's.
        commands: What to do, as the functions of `requests.py` make it.
        now: Replaces the database's clock, in tests.

    Returns:
        For each command, in their order, its result, or the refusal as an exception that is not
        raised.

    Raises:
        Invalid: VALIDATION_ERROR, one of `commands` is no command.
        RetryableDatabaseError: A passing condition of the database.
    """
    return operations.execute_each(session, requests.of_callers(commands), now=_checked(now))


def lock_users(session: Session, user_ids: Iterable[uuid.UUID]) -> None:
    """Lock users' rows, in `user_id` order, until the database transaction ends.

    Call it before several calls that change several users: in another order two callers could each
    wait for the other (a deadlock). Users who do not exist are passed over.

    Args:
        session: In a database transaction of the caller's.
        user_ids: UUIDs, in any order.

    Raises:
        Invalid: VALIDATION_ERROR, one of `user_ids` is no UUID.
        RetryableDatabaseError: A passing condition of the database.
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
reverse = _operation(requests.reverse)
