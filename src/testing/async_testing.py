"""The functions of `src.testing` for async applications: they take an `AsyncSession`.

Their other parameters, results and errors are those of their namesakes. There is no second
implementation: each runs the sync function on the session inside (`AsyncSession.run_sync`).
"""

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from src.testing import books, payments, users

P = ParamSpec("P")
T = TypeVar("T")


def _async(
    function: Callable[Concatenate[Session, P], T],
) -> Callable[Concatenate[AsyncSession, P], Coroutine[Any, Any, T]]:
    async def run(session: AsyncSession, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await session.run_sync(function, *args, **kwargs)

    run.__name__ = run.__qualname__ = function.__name__
    run.__doc__ = function.__doc__
    return run


make_user = _async(users.make_user)
pay = _async(payments.pay)
refund = _async(payments.refund)
fail_refund = _async(payments.fail_refund)
dispute = _async(payments.dispute)
win_dispute = _async(payments.win_dispute)
assert_books_balance = _async(books.assert_books_balance)
