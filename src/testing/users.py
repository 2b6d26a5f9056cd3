"""Makes users with credits, for tests."""

import datetime as dt
import uuid
from typing import Any

from sqlalchemy.orm import Session

from src.common.credits import ledger
from src.common.models.user import User


def make_user(
    session: Session,
    /,
    credits: int = 0,  # noqa: A002  as the columns are called
    *,
    expires_at: dt.datetime | None = None,
    **columns: Any,
) -> User:
    """A new user, in the database but not committed.

    Args:
        session: In a database transaction of the caller's.
        credits: Whole credits, 0 or more. They are given as one promotional lot.
        expires_at: When those credits expire; None is never.
        columns: Other columns of `User`. Each user has an e-mail address of their own.
    """
    email = f"user-{uuid.uuid4().hex}@example.com"
    user = User(**{"email": email, "password_hash": "managed_externally", **columns})
    session.add(user)
    session.flush()
    if credits:
        ledger.grant(session, user.user_id, credits, key="testing:credits", expires_at=expires_at)
    return user
