"""What endpoints ask FastAPI for: the caller, the settings, the ledger, the token's claims.

All are coroutines, those that wait for nothing too: FastAPI runs a plain function in a thread.
"""

import hashlib
import uuid
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from cachetools import TTLCache
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param

from src.api.src.authentication import TokenVerifier
from src.api.src.principals import Principal, find_service, find_user
from src.common.accounts.api_keys import PREFIX
from src.common.async_database import read_from_async_database
from src.common.credits.domain.commands import Command, Result
from src.common.credits.engine.readings import Reading
from src.common.exceptions import Forbidden, Unauthenticated
from src.common.postgres.shared_statements import AsksTogether
from src.common.routing import async_routed_to
from src.common.settings import Settings
from src.common.stripe.gateway import Gateway


@dataclass(frozen=True)
class Oneself:
    """A user, by a genuine token, who asks what they have now: whether they may is read along."""

    readings: AsksTogether[uuid.UUID, Reading]


ServiceCache = MutableMapping[bytes, Principal]
"""The services whose keys were valid a moment ago, by the key's SHA-256."""
SERVICES_CACHED_MAX = 1_024


class Ledger(Protocol):
    """What moves credits: the batch engine."""

    async def execute(self, command: Command) -> Result:
        """Do one command and answer once it is committed."""
        ...


def service_cache(settings: Settings) -> ServiceCache:
    """An empty cache; a revoked key may be believed for `api_key_cache_seconds`."""
    return TTLCache[bytes, Principal](SERVICES_CACHED_MAX, settings.api_key_cache_seconds)


_bearer = HTTPBearer(
    auto_error=False,
    description="A user's token (Supabase JWT, ES256) or a service's API key (`fsk_…`).",
)


async def _verifier(request: Request) -> TokenVerifier:
    verifier: TokenVerifier = request.app.state.verifier
    return verifier


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _gateway(request: Request) -> Gateway | None:
    gateway: Gateway | None = getattr(request.app.state, "gateway", None)
    return gateway


async def _token(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> str:
    if credentials is None:
        raise Unauthenticated(
            "Send a bearer token: `Authorization: Bearer …`", "AUTHENTICATION_FAILURE"
        )
    return credentials.credentials


Verifier = Annotated[TokenVerifier, Depends(_verifier)]
SettingsOf = Annotated[Settings, Depends(_settings)]
GatewayOf = Annotated[Gateway | None, Depends(_gateway)]
"""The way to Stripe; None where no key is configured."""
BearerToken = Annotated[str, Depends(_token)]


def known_service(request: Request) -> Principal | None:
    """The service that asks, where its key was valid a moment ago."""
    scheme, token = get_authorization_scheme_param(request.headers.get("authorization"))
    return _services(request).get(_fingerprint(token)) if scheme.lower() == "bearer" else None


def _services(request: Request) -> ServiceCache:
    services: ServiceCache = request.app.state.services
    return services


def _fingerprint(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


async def _principal(request: Request, token: BearerToken, verifier: Verifier) -> Principal:
    known = known_service(request)
    if known is not None:
        return known
    if token.startswith(PREFIX):
        service = await read_from_async_database(lambda session: find_service(session, token))
        _services(request)[_fingerprint(token)] = service
        return service
    user_id = uuid.UUID((await verifier.verify(token))["sub"])  # before a connection is taken
    async with async_routed_to(user_id):
        return await read_from_async_database(lambda session: find_user(session, user_id))


async def _caller_or_oneself(
    request: Request, token: BearerToken, verifier: Verifier
) -> Principal | Oneself:
    readings: AsksTogether[uuid.UUID, Reading] | None = getattr(request.app.state, "readings", None)
    is_plain = not request.scope["query_string"] and not token.startswith(PREFIX)
    if readings is not None and is_plain:
        claims = await verifier.verify(token)
        if str(uuid.UUID(claims["sub"])) == request.path_params["user_id"]:
            return Oneself(readings)
    return await _principal(request, token, verifier)


async def _user_principal(principal: Annotated[Principal, Depends(_principal)]) -> Principal:
    if principal.user_id is None:
        raise Forbidden("This needs a user's own token", "FORBIDDEN")
    return principal


async def claims_at_hand(request: Request) -> dict[str, Any] | None:
    """The claims of the genuine user's token that was sent; None where it is no user's at all.

    Raises:
        Unauthenticated: AUTH_TOKEN_EXPIRED or AUTH_TOKEN_INVALID.
        SigningKeysUnavailable: AUTH_KEYS_UNAVAILABLE.
    """
    scheme, token = get_authorization_scheme_param(request.headers.get("authorization"))
    if scheme.lower() != "bearer" or not token or token.startswith(PREFIX):
        return None
    verifier: TokenVerifier = request.app.state.verifier
    return await verifier.verify(token)


async def claims_of(token: BearerToken, verifier: Verifier) -> dict[str, Any]:
    """The claims of a genuine user's token.

    Raises:
        Forbidden: FORBIDDEN, the token is a service's key.
        Unauthenticated: AUTH_TOKEN_EXPIRED or AUTH_TOKEN_INVALID.
        SigningKeysUnavailable: AUTH_KEYS_UNAVAILABLE.
    """
    if token.startswith(PREFIX):
        raise Forbidden("This needs a user's own token", "FORBIDDEN")
    return await verifier.verify(token)


Caller = Annotated[Principal, Depends(_principal)]
"""Whoever asks: a user or a service."""
CallerOrOneself = Annotated[Principal | Oneself, Depends(_caller_or_oneself)]
"""The same, but a user who asks about oneself is not looked up yet."""
CallingUser = Annotated[Principal, Depends(_user_principal)]
"""The user who asks; services are refused."""
