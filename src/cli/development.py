"""Keys of a developer's machine, made when first needed; for ENV=local only.

`serve` verifies users' tokens and webhooks with them where nothing else is configured; `user token`
and the offline Stripe sign with them.
"""

import datetime as dt
import json
import os
import secrets
import uuid
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from pydantic import BaseModel, SecretStr

from src.common.exceptions import SettingsError
from src.common.settings import Settings
from src.local_postgres import data_folder, make_data_folder

ALGORITHM = "ES256"
FILE_NAME = "development-keys.json"


class DevelopmentKeys(BaseModel):
    """A key pair that signs users' tokens, and a secret that signs webhooks."""

    kid: str
    private_jwk: SecretStr
    webhook_secret: SecretStr

    @property
    def private_key(self) -> ec.EllipticCurvePrivateKey:
        """The key that signs."""
        key = ECAlgorithm.from_jwk(self.private_jwk.get_secret_value())
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise SettingsError(f"{FILE_NAME} holds no private key; delete it to make a new one")
        return key

    @property
    def public_jwk_set(self) -> str:
        """What verifies, as AUTH_JWT_SECRET wants it."""
        jwk = ECAlgorithm.to_jwk(self.private_key.public_key(), as_dict=True)
        return json.dumps({"keys": [{**jwk, "kid": self.kid, "alg": ALGORITHM, "use": "sig"}]})


def development_keys(settings: Settings) -> DevelopmentKeys:
    """This machine's keys, made at the first call.

    Raises:
        SettingsError: ENV is not `local`: there, keys come from the identity provider and Stripe.
    """
    if not settings.is_local:
        raise SettingsError(f"ENV is {settings.env}: development keys are for ENV=local only")
    path = data_folder() / FILE_NAME
    if not path.exists():
        _create(path)
    return DevelopmentKeys.model_validate_json(path.read_text())


def issue_token(
    settings: Settings, *, user_id: uuid.UUID, email: str, lifetime: dt.timedelta
) -> str:
    """A token like Supabase's, signed with this machine's key.

    Raises:
        SettingsError: ENV is not `local`, or a JWK set is configured: we have no key of it.
    """
    for name in ("auth_jwt_jwks_url", "auth_jwt_secret"):
        if getattr(settings, name) is not None:
            raise SettingsError(f"{name.upper()} is set: only its owner can issue tokens")
    keys = development_keys(settings)
    now = dt.datetime.now(dt.UTC)
    claims: dict[str, object] = {
        "sub": str(user_id),
        "email": email,
        "aud": settings.auth_jwt_audience,
        "iss": settings.auth_jwt_issuer or "flashslides-development",
        "iat": now,
        "exp": now + lifetime,
        "role": "authenticated",
        "user_metadata": {},
    }
    return jwt.encode(claims, keys.private_key, ALGORITHM, headers={"kid": keys.kid})


def _create(path: Path) -> None:
    """Write new keys so that only their owner reads them; two processes at once write one file."""
    keys = {
        "kid": f"development-{secrets.token_hex(4)}",
        "private_jwk": ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1())),
        "webhook_secret": f"whsec_{secrets.token_hex(24)}",
    }
    make_data_folder()  # as the embedded server makes it, which may come later
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(keys, file)
        path.hardlink_to(scratch)
    except FileExistsError:
        pass  # another process was first: its keys are the ones
    finally:
        scratch.unlink()
