"""Who is asking, and what they may do: a user by token, a service by key."""

import uuid
from dataclasses import dataclass

from sqlalchemy.orm import Session

from src.common.accounts.api_keys import Scope, find_valid_api_key
from src.common.accounts.queries import get_user
from src.common.exceptions import Forbidden, Unauthenticated


@dataclass(frozen=True)
class Principal:
    """Somebody who has proved who they are."""

    actor: str
    """`user:` or `key:` and an id or service name; what the books and logs call them."""
    user_id: uuid.UUID | None
    """The user, where a user asks."""
    scopes: frozenset[Scope]

    @property
    def is_person(self) -> bool:
        """Whether it is somebody who may have to ask another person first (rule 13)."""
        return self.user_id is not None

    def require(self, *scopes: Scope) -> None:
        """Raise unless this principal has one of `scopes`.

        Raises:
            Forbidden: FORBIDDEN.
        """
        if self.scopes.isdisjoint(scopes):
            raise Forbidden(f"This needs the scope {' or '.join(scopes)}", "FORBIDDEN")

    def require_own_or(self, scope: Scope, user_id: uuid.UUID) -> None:
        """Raise unless `user_id` is this principal's own or `scope` opens others'.

        Decided before any look-up of that user, so the answer does not tell whether they exist.

        Raises:
            Forbidden: FORBIDDEN.
        """
        if self.user_id != user_id and scope not in self.scopes:
            raise Forbidden("This token reaches its own user only", "FORBIDDEN")


def find_user(session: Session, user_id: uuid.UUID) -> Principal:
    """The principal that a user's genuine token proves.

    Raises:
        NotFound: USER_NOT_FOUND, a genuine token whose user has not signed in here yet.
        Forbidden: USER_INACTIVE.
    """
    user = get_user(session, user_id)
    refuse_inactive(is_active=user.is_active)
    scopes = frozenset(Scope) if user.user_type == "admin" else frozenset[Scope]()
    return Principal(f"user:{user.user_id}", user.user_id, scopes)


def refuse_inactive(*, is_active: bool) -> None:
    """Raise unless the user may act.

    Raises:
        Forbidden: USER_INACTIVE.
    """
    if not is_active:
        raise Forbidden("This account is deactivated", "USER_INACTIVE")


def find_service(session: Session, key: str) -> Principal:
    """The principal that an API key proves.

    Raises:
        Unauthenticated: AUTH_TOKEN_INVALID.
    """
    record = find_valid_api_key(session, key)
    if record is None:
        raise Unauthenticated("The API key is unknown, revoked or expired", "AUTH_TOKEN_INVALID")
    known = frozenset(scope for scope in Scope if scope in record.scopes)
    return Principal(f"key:{record.service_name}", None, known)
