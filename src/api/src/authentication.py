"""Users' tokens: which JWT is accepted, and whom it names. Supabase, ES256 only.

The token never chooses the algorithm. Claims: `sub` (our user id), `exp`, `iss`, `aud`, `email`,
`user_metadata.full_name`, `user_metadata.marketing_consent`.
"""

import hashlib
import time
import uuid
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import jwt
import structlog
from cachetools import LRUCache
from pydantic import BaseModel, model_validator

from src.api.src.signing_keys import ALGORITHM, SigningKeys, signing_keys_of
from src.common.accounts.operations import Identity
from src.common.accounts.rules import storable
from src.common.exceptions import Invalid, SettingsError, Unauthenticated
from src.common.models.user import EMAIL_LENGTH_MAX, is_plausible_email
from src.common.settings import Settings

logger = structlog.get_logger(__name__)

LEEWAY_SECONDS = 60
KNOWN_TOKENS_MAX = 4_096
_KNOWN_TOKEN_BYTES_MAX = 4_096
"""Longer ones are verified each time: what is remembered stays small."""
_NAME_LENGTH_MAX = 500


class _UserMetadata(BaseModel):
    """What Supabase knows of the person; whatever is odd there is read as not given."""

    full_name: object = None
    marketing_consent: object = None

    @model_validator(mode="before")
    @classmethod
    def _anything_else_is_nothing(cls, value: object) -> object:
        return cast("object", value) if isinstance(value, dict) else {}


class _Genuine(NamedTuple):
    """What was found out about a token."""

    kid: str
    key: jwt.PyJWK
    """The very key that verified it: a set that is fetched anew has others."""
    claims: dict[str, Any]


@dataclass(frozen=True)
class TokenVerifier:
    """Verifies users' tokens against keys, issuer and audience.

    A signature costs more than all else that is done for a small request. So a token that was found
    genuine is known by its SHA-256 until it expires, or its key is not in the set any more, or is
    there anew. Who the user is and may is none of its business: that is read each time.
    """

    keys: SigningKeys
    issuer: str | None
    audience: str
    is_local: bool
    known: MutableMapping[bytes, _Genuine] = field(
        default_factory=lambda: LRUCache[bytes, _Genuine](KNOWN_TOKENS_MAX), repr=False
    )

    async def verify(self, token: str) -> dict[str, Any]:
        """The claims of a token that is genuine, meant for us and not expired.

        Raises:
            Unauthenticated: AUTH_TOKEN_EXPIRED or AUTH_TOKEN_INVALID.
            SigningKeysUnavailable: AUTH_KEYS_UNAVAILABLE.
        """
        fingerprint = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        known = self.known.get(fingerprint)
        if known is not None and await self.keys.find(known.kid) is known.key:
            if int(known.claims["exp"]) <= time.time() - LEEWAY_SECONDS:
                raise Unauthenticated("The token has expired", "AUTH_TOKEN_EXPIRED")
            return dict(known.claims)
        found = await self._look_at(token)
        if len(token) <= _KNOWN_TOKEN_BYTES_MAX:
            self.known[fingerprint] = found
        return dict(found.claims)

    async def _look_at(self, token: str) -> _Genuine:
        """Find out about a token that nobody knows, or no more."""
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = await self.keys.find(kid) if isinstance(kid, str) else None
            if key is None:
                raise jwt.InvalidKeyError("no key of ours has the token's kid")
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=self.audience,
                issuer=self.issuer,
                leeway=LEEWAY_SECONDS,
                options={
                    "require": ["exp", "sub"] if self.is_local else ["exp", "sub", "iss", "aud"],
                    "verify_aud": not self.is_local,
                },
            )
            uuid.UUID(claims["sub"])
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("The token has expired", "AUTH_TOKEN_EXPIRED") from None
        except (jwt.PyJWTError, ValueError) as error:
            logger.info("Token refused", reason=type(error).__name__)
            raise Unauthenticated("The token is not valid", "AUTH_TOKEN_INVALID") from None
        return _Genuine(str(kid), key, claims)


def build_verifier(settings: Settings) -> TokenVerifier:
    """The verifier the settings describe.

    Raises:
        SettingsError: the JWK set is unusable, or, where ENV is not `local`, it holds a key that
            could sign, or set or issuer is missing.
    """
    if not settings.is_local and settings.auth_jwt_issuer is None:
        raise SettingsError("AUTH_JWT_ISSUER: required where ENV is not local")
    return TokenVerifier(
        keys=signing_keys_of(settings),
        issuer=settings.auth_jwt_issuer,
        audience=settings.auth_jwt_audience,
        is_local=settings.is_local,
    )


def identity_of(claims: Mapping[str, Any]) -> Identity:
    """Who the claims of a verified token say is signing in.

    Raises:
        Invalid: VALIDATION_ERROR, no usable e-mail.
    """
    email = claims.get("email")
    if not isinstance(email, str) or email != storable(email) or not is_plausible_email(email):
        raise Invalid(
            f"email: the token must carry one, at most {EMAIL_LENGTH_MAX} characters long",
            "VALIDATION_ERROR",
            field="email",
        )
    metadata = _UserMetadata.model_validate(claims.get("user_metadata"))
    consent = metadata.marketing_consent
    return Identity(
        user_id=uuid.UUID(claims["sub"]),
        email=email,
        full_name=_clean_name(metadata.full_name),
        marketing_consent=consent if isinstance(consent, bool) else None,
    )


def _clean_name(name: object) -> str | None:
    """A name PostgreSQL can store, or None: an odd name is no reason to refuse sign-in."""
    if not isinstance(name, str):
        return None
    return storable(name)[:_NAME_LENGTH_MAX]
