"""Rows for tests: right in every column, so that a test spells out only what it is about."""

from itertools import count
from typing import Any

from src.common.models.transaction import Transaction
from src.common.models.user import User

_numbers = count(1)


def a_user(**columns: Any) -> User:
    """A new user that PostgreSQL accepts, with an e-mail nobody else has."""
    email = f"person-{next(_numbers)}@example.com"
    return User(**{"email": email, "password_hash": "managed_externally", **columns})


def a_transaction(**columns: Any) -> Transaction:
    """A new purchase that PostgreSQL accepts once it has a user."""
    bought = {"amount_paid_cents": 500, "credits_added": 500}
    return Transaction(**{"stripe_session_id": f"cs_{next(_numbers)}", **bought, **columns})
