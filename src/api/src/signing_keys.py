"""The keys that sign users' tokens: a JWK set of the settings, or one at a URL that is kept fresh.

Only public EC P-256 keys with a `kid` count. See decision 0029.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import httpx
import jwt
import structlog
from pydantic import BaseModel, ValidationError

from src.common.exceptions import ExceptionWithErrorType, SettingsError, Unavailable
from src.common.http_clients import open_http_client
from src.common.settings import Settings

logger = structlog.get_logger(__name__)

ALGORITHM = "ES256"
REFRESH_SECONDS = 300.0
"""How old a set at a URL becomes; as long may a key sign that has left it."""
LOOK_AGAIN_SECONDS = 10.0
"""How long after a look at the URL an unknown `kid` makes us look again: anybody can invent one."""
FETCH_TIMEOUT_SECONDS = 5.0
SET_BYTES_MAX = 262_144

_Keys = Mapping[str, jwt.PyJWK]


class SigningKeysUnavailable(Unavailable):
    """The set cannot be had now, so that nobody can tell whether a key is in it."""

    retry_after_seconds: ClassVar[int] = int(LOOK_AGAIN_SECONDS)

    def __init__(self) -> None:
        super().__init__("The keys that sign tokens cannot be had now", "AUTH_KEYS_UNAVAILABLE")


class SigningKeys(Protocol):
    """Where the key of a token is found."""

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """The key of this `kid`, or None where there is none.

        Raises:
            SigningKeysUnavailable: AUTH_KEYS_UNAVAILABLE, nobody can tell at present.
        """
        ...

    def kept_fresh(self) -> AbstractAsyncContextManager[None]:
        """Keep the set as it is where it comes from, until the block is left.

        Raises:
            SettingsError: what is there is no set of keys that we can use.
        """
        ...


@dataclass(frozen=True)
class ConfiguredKeys:
    """A set that is part of the settings: for as long as the process runs."""

    keys: _Keys

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """The key of this `kid`."""
        return self.keys.get(kid)

    @asynccontextmanager
    async def kept_fresh(self) -> AsyncGenerator[None]:
        """Nothing changes it."""
        yield


class PublishedKeys:
    """A set at a URL. It is fetched every few minutes, and sooner for a `kid` that is unknown.

    PyJWT's own client fetches in a blocking way, forgets the set when it is old, and asks a server
    that is down anew for every token. While the URL cannot be had, or has something else, the set
    that we know stays.
    """

    def __init__(
        self,
        url: str,
        *,
        is_local: bool,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._is_local = is_local
        self._client = open_http_client(transport=transport, timeout=FETCH_TIMEOUT_SECONDS)
        self._clock = clock
        self._keys: _Keys = {}
        self._failure: ExceptionWithErrorType | None = None
        """Why the last look came to nothing."""
        self._looked_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """The key of this `kid`; for one that is unknown the set is looked at, now and then."""
        if kid not in self._keys and not self._has_just_looked:
            await self._look()
        key = self._keys.get(kid)
        if key is None and self._failure is not None:
            raise SigningKeysUnavailable
        return key

    @asynccontextmanager
    async def kept_fresh(self) -> AsyncGenerator[None]:
        """Look at once, and every few minutes. A URL that does not answer stops no start."""
        async with self._client:
            await self._look()
            if isinstance(self._failure, SettingsError):
                raise self._failure
            refreshing = asyncio.create_task(self._refresh())
            try:
                yield
            finally:
                refreshing.cancel()
                with suppress(asyncio.CancelledError):
                    await refreshing

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            await self._look()

    @property
    def _has_just_looked(self) -> bool:
        is_recent = self._clock() - self._looked_at < LOOK_AGAIN_SECONDS
        return is_recent and self._looking is None

    async def _look(self) -> None:
        """Fetch the set; all who want it meanwhile wait for the one answer."""
        if self._looking is None:
            self._looked_at = self._clock()
            self._looking = asyncio.create_task(self._replace())
            self._looking.add_done_callback(self._has_looked)
        await asyncio.shield(self._looking)  # who leaves takes it from nobody else

    def _has_looked(self, _looked: asyncio.Task[None]) -> None:
        self._looking = None

    async def _replace(self) -> None:
        try:
            keys = usable_keys(await self._fetch(), "AUTH_JWT_JWKS_URL", is_local=self._is_local)
        except SettingsError as error:
            self._failure = error
            logger.warning("The JWK set cannot be used; what we know stays", reason=error.message)
        except (TimeoutError, httpx.HTTPError) as error:
            self._failure = SigningKeysUnavailable()
            reason = type(error).__name__
            logger.warning("The JWK set cannot be had; what we know stays", reason=reason)
        else:
            if keys.keys() != self._keys.keys():
                logger.info("Keys that sign tokens", kids=sorted(keys))
            self._keys, self._failure = keys, None

    async def _fetch(self) -> bytes:
        found = bytearray()
        async with (
            asyncio.timeout(FETCH_TIMEOUT_SECONDS),
            self._client.stream("GET", self._url, headers={"Accept": "application/json"}) as answer,
        ):
            answer.raise_for_status()
            async for part in answer.aiter_bytes():
                found += part
                if len(found) > SET_BYTES_MAX:
                    raise SettingsError(f"AUTH_JWT_JWKS_URL: more than {SET_BYTES_MAX:,} bytes")
        return bytes(found)


def signing_keys_of(settings: Settings) -> SigningKeys:
    """The keys that the settings name.

    Raises:
        SettingsError: there is no set where ENV is not `local`, or it is none that we can use.
    """
    if settings.auth_jwt_jwks_url is not None:
        return PublishedKeys(settings.auth_jwt_jwks_url, is_local=settings.is_local)
    if settings.auth_jwt_secret is not None:
        written = settings.auth_jwt_secret.get_secret_value()
        return ConfiguredKeys(usable_keys(written, "AUTH_JWT_SECRET", is_local=settings.is_local))
    if settings.is_local:
        return ConfiguredKeys({})
    raise SettingsError(
        "AUTH_JWT_JWKS_URL: required where ENV is not local, or AUTH_JWT_SECRET with the JWK set "
        "itself as JSON"
    )


def usable_keys(written: str | bytes, setting: str, *, is_local: bool) -> _Keys:
    """The keys of a set by their `kid`, without those that no token of ours can name.

    Raises:
        SettingsError: it is no JWK set, has no such key, or, outside of ENV=local, one that signs.
    """
    keys: dict[str, jwt.PyJWK] = {}
    for jwk in _parse_set(written, setting):
        if not is_local:
            _refuse_signing_key(jwk, setting)
        kid = jwk.get("kid")
        if not _verifies(jwk) or not isinstance(kid, str):
            continue  # no token can use it: only ES256 with a kid is accepted
        public = {name: value for name, value in jwk.items() if name != "d"}
        try:
            keys[kid] = jwt.PyJWK(public, algorithm=ALGORITHM)
        except jwt.PyJWTError:
            raise SettingsError(f"{setting}: key {kid!r} is no EC P-256 key") from None
    if not keys:
        raise SettingsError(f"{setting}: the JWK set has no EC P-256 key with a kid")
    return keys


def _verifies(jwk: Mapping[str, Any]) -> bool:
    """Whether it is a key for signatures of ours, as far as it says (RFC 7517 §4)."""
    kind = (jwk.get("kty"), jwk.get("crv"), jwk.get("use", "sig"), jwk.get("alg", ALGORITHM))
    return kind == ("EC", "P-256", "sig", ALGORITHM)


class _JwkSet(BaseModel):
    """A JWK set (RFC 7517 §5)."""

    keys: list[dict[str, Any]]


def _parse_set(written: str | bytes, setting: str) -> list[dict[str, Any]]:
    try:
        return _JwkSet.model_validate_json(written).keys
    except ValidationError:
        raise SettingsError(f'{setting}: not a JWK set, {{"keys": [...]}}, as JSON') from None


def _refuse_signing_key(jwk: Mapping[str, Any], setting: str) -> None:
    """A key that can sign tokens has no business in a service that only verifies them."""
    if jwk.get("kty") == "oct" or "d" in jwk or "k" in jwk:
        raise SettingsError(
            f"{setting}: holds a symmetric or private key; whoever reads it could sign tokens. "
            "Give it the public keys only"
        )
