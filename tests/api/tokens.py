"""Supabase's part: the keys that sign users' tokens, and tokens good and bad."""

import json
import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

ISSUER = "https://project.supabase.example/auth/v1"
AUDIENCE = "authenticated"


@dataclass(frozen=True)
class SigningKey:
    """An EC P-256 key pair with its `kid`."""

    kid: str
    private: ec.EllipticCurvePrivateKey

    @property
    def public_jwk(self) -> dict[str, Any]:
        """What the JWK set of the service holds."""
        return {**ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True), "kid": self.kid}

    @property
    def private_jwk(self) -> dict[str, Any]:
        """What only the identity provider may hold."""
        return {**ECAlgorithm.to_jwk(self.private, as_dict=True), "kid": self.kid}


def new_key(kid: str) -> SigningKey:
    """A key pair nobody has seen before."""
    return SigningKey(kid, ec.generate_private_key(ec.SECP256R1()))


TRUSTED = new_key("trusted")


def jwk_set(*keys: dict[str, Any]) -> str:
    """A JWK set as AUTH_JWT_SECRET wants it, by default with the one key we trust."""
    return json.dumps({"keys": list(keys) or [TRUSTED.public_jwk]})


def make_claims(
    user_id: uuid.UUID | None = None,
    *,
    email: str | None = "ada@example.com",
    lifetime: float = 600,
    without: Collection[str] = (),
    **others: Any,
) -> dict[str, Any]:
    """The claims of a token that is right in every respect, but for what the test changes."""
    claims: dict[str, Any] = {
        "sub": str(user_id or uuid.uuid4()),
        "email": email,
        "aud": AUDIENCE,
        "iss": ISSUER,
        "exp": int(time.time() + lifetime),
        "role": "authenticated",
        "user_metadata": {},
        **others,
    }
    return {name: value for name, value in claims.items() if name not in without}


def make_token(
    user_id: uuid.UUID | None = None,
    *,
    key: SigningKey = TRUSTED,
    kid: str | None = "",
    **claims: Any,
) -> str:
    """A token signed with ES256; `kid` is the key's own unless given, None leaves it out."""
    headers = {} if kid is None else {"kid": kid or key.kid}
    payload = json.dumps(make_claims(user_id, **claims)).encode()
    return jwt.PyJWS().encode(payload, key.private, "ES256", headers=headers)
