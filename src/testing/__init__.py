"""A testing kit for applications that use this library; `plugin.py` has its pytest fixtures.

The functions here take a `Session`. Those of `async_testing` have the same names and take an
`AsyncSession`. None of them commits. Nothing that runs in production imports this package.
"""

from src.testing.books import assert_books_balance
from src.testing.clock import FrozenClock
from src.testing.databases import Database
from src.testing.payments import (
    FakeDispute,
    FakePayment,
    FakeRefund,
    dispute,
    fail_refund,
    pay,
    refund,
    win_dispute,
)
from src.testing.users import make_user

__all__ = [
    "Database",
    "FakeDispute",
    "FakePayment",
    "FakeRefund",
    "FrozenClock",
    "assert_books_balance",
    "dispute",
    "fail_refund",
    "make_user",
    "pay",
    "refund",
    "win_dispute",
]
