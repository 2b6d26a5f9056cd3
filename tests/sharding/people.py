"""Users in groups, and what they have."""

import uuid
from typing import Any

from src.common.credits.queries import balance
from src.common.database import SessionLocal
from src.common.postgres.routes import routed_to_schema
from src.common.routing import routed_to
from tests.credits.books import grant
from tests.models.examples import a_user


def user_of(group: str, credits: int = 0, **columns: Any) -> uuid.UUID:
    """A new user of this group, with so many credits."""
    with routed_to_schema(group), SessionLocal.begin() as session:
        user = a_user(**columns)
        session.add(user)
        session.flush()
        if credits:
            give(session, user.user_id, credits)
        return user.user_id


def give(session: Any, user_id: uuid.UUID, credits: int) -> None:
    """Grant credits."""
    from src.common.credits.operations import execute

    execute(session, [grant(user_id, credits)])


def balance_of(user_id: uuid.UUID) -> int:
    """What the user may spend."""
    with routed_to(user_id), SessionLocal() as session:
        return balance(session, user_id).balance
