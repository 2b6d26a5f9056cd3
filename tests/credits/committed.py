"""Books whose changes are really committed, for tests of many clients at once."""

import uuid
from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.common.models import CreditHold
from src.common.models.credit_hold import HoldStatus
from tests.credits.books import booked_balance, check_books, grant, make_user

T = TypeVar("T")


def make_users(*balances: int) -> list[uuid.UUID]:
    """Committed users with these balances, in `user_id` order."""
    with SessionLocal.begin() as session:
        users = [make_user(session) for _ in balances]
        people = sorted(user.user_id for user in users)
        grants = [grant(who, n) for who, n in zip(people, balances, strict=True) if n]
        execute(session, grants)
    return people


def look(at: Callable[[Session], T]) -> T:
    """What the books say, having made sure that all of them balance."""
    with SessionLocal() as session:
        check_books(session)
        return at(session)


def balances(people: Sequence[uuid.UUID]) -> list[int]:
    """The booked balances; all books balance."""
    return look(lambda session: [booked_balance(session, who) for who in people])


def open_holds(user_id: uuid.UUID) -> int:
    """How many of the user's holds are open; all books balance."""

    def count(session: Session) -> int:
        mine = CreditHold.user_id == user_id, CreditHold.status == HoldStatus.OPEN
        return session.scalars(select(func.count()).where(*mine)).one()

    return look(count)
