"""The functions of `src.testing` for async applications: they take an `AsyncSession`.

Their other parameters, results and errors are those of their namesakes. There is no second
implementation: each runs the sync function on the session inside (`AsyncSession.run_sync`).
"""

from src.common.postgres.async_functions import for_async_session
from src.testing import books, payments, users

make_user = for_async_session(users.make_user)
pay = for_async_session(payments.pay)
refund = for_async_session(payments.refund)
fail_refund = for_async_session(payments.fail_refund)
dispute = for_async_session(payments.dispute)
win_dispute = for_async_session(payments.win_dispute)
assert_books_balance = for_async_session(books.assert_books_balance)
