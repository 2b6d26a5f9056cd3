"""Finds a user; nothing here locks or writes."""

import uuid

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from src.common.exceptions import NotFound
from src.common.models.user import User
from src.common.sharding.refusals import refuse_other_groups


def get_user(session: Session, user_id: uuid.UUID) -> User:
    """The user with this id.

    Raises:
        NotFound: USER_NOT_FOUND.
    """
    user = session.scalars(select(User).where(User.user_id == user_id)).one_or_none()
    if user is None:
        refuse_other_groups(session.connection(), [user_id])
        raise NotFound("User not found", "USER_NOT_FOUND")
    return user


def find_user_by_email(session: Session, email: str) -> User | None:
    """The user with this e-mail, whatever its case."""
    return session.scalars(
        select(User).where(func.lower(User.email) == func.lower(email))
    ).one_or_none()
