"""Who is signed in: `require(permission)`, which every page and action asks for."""

import datetime as dt
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, Request

from src.common.async_database import read_from_async_database
from src.common.exceptions import Forbidden, Unauthenticated
from src.console import sessions
from src.console.permissions import Permission, Role, permitted
from src.console.service import settings_of
from src.console.whose import routed_by

SESSION = "session"
"""What the cookie calls the session's secret."""
CONFIRMED_MINUTES = 10
"""After so long, the provider is asked again before the next page."""
CONFIRMED_MINUTES_TO_ACT = 20
"""After so long, nothing is done before a page has asked it."""


@dataclass(frozen=True)
class Person:
    """Somebody who is signed in to the console."""

    actor: str
    """`user:` and an id that stays: what journal and audit trail call them."""
    name: str
    roles: frozenset[Role]

    def may(self, permission: Permission) -> bool:
        """Whether one of the roles permits it."""
        return permission in permitted(self.roles)


class SignInNeeded(Unauthenticated):
    """Nobody is signed in: a page leads to the sign-in, and an action is refused."""


class ConfirmationNeeded(SignInNeeded):
    """The provider is to say again that the person has a role."""


@dataclass(frozen=True)
class Requirement:
    """A permission, as a dependency of a route."""

    permission: Permission

    async def __call__(self, request: Request) -> AsyncGenerator[Person]:
        """The person, who may; what the address is about is seen as long as the page is made.

        Raises:
            NotFound: there is no such user, purchase or request.
            Unauthenticated: AUTHENTICATION_FAILURE, nobody is signed in.
            Forbidden: FORBIDDEN, none of the roles permits it.
        """
        person = await signed_in(request)
        if not person.may(self.permission):
            roles = ", ".join(sorted(person.roles))
            raise Forbidden(
                f"This needs the permission {self.permission}, which the role {roles} does not "
                "have: ask an administrator",
                "FORBIDDEN",
            )
        async with routed_by(request.path_params):
            yield person


def require(permission: Permission) -> Any:
    """What a route asks for to know the person, who needs this permission."""
    return Depends(Requirement(permission))


async def signed_in(request: Request) -> Person:
    """The person whose session the cookie names.

    Raises:
        Unauthenticated: AUTHENTICATION_FAILURE, nobody is signed in.
    """
    secret = request.session.get(SESSION)
    known = None
    if isinstance(secret, str):
        known = await read_from_async_database(lambda session: sessions.find(session, secret))
    is_by_link = known is not None and known.issuer == sessions.LOCAL_ISSUER
    if known is None or (is_by_link and not settings_of(request).is_local):
        raise SignInNeeded("Nobody is signed in", "AUTHENTICATION_FAILURE")
    person = Person(f"user:{known.person_id}", known.name, known.roles)
    request.state.person = person
    if not is_by_link:
        _refuse_unconfirmed(request, known.confirmed_at)
    return person


def _refuse_unconfirmed(request: Request, confirmed_at: dt.datetime) -> None:
    is_read = request.method in ("GET", "HEAD")
    minutes = CONFIRMED_MINUTES if is_read else CONFIRMED_MINUTES_TO_ACT
    if dt.datetime.now(dt.UTC) - confirmed_at > dt.timedelta(minutes=minutes):
        raise ConfirmationNeeded(
            "Your sign-in has to be confirmed: load the page again, then repeat it. Nothing was "
            "done",
            "AUTHENTICATION_FAILURE",
        )


def person_at(request: Request) -> Person | None:
    """Who was found to be signed in, for an error's page."""
    person: Person | None = getattr(request.state, "person", None)
    return person
