"""Users in groups, and what they have."""

import uuid
from typing import Any

from src.common.credits import queries
from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.common.postgres.routes import routed_to_schema
from src.common.routing import routed_to
from tests.credits.books import grant
from tests.models.examples import a_user


def user_of(group: str, balance: int = 0, **columns: Any) -> uuid.UUID:
    """A new user of this group, with so many credits."""
    with routed_to_schema(group), SessionLocal.begin() as session:
        user = a_user(**columns)
        session.add(user)
        session.flush()
        if balance:
            execute(session, [grant(user.user_id, balance)])
        return user.user_id


def balance_of(user_id: uuid.UUID) -> int:
    """What the user may spend."""
    with routed_to(user_id), SessionLocal() as session:
        return queries.balance(session, user_id).balance
