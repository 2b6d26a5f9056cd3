"""Users' tokens: what is accepted, and everything an attacker would try."""

import asyncio
import base64
import json
import time
import uuid
from typing import Any

import jwt
import pytest
import time_machine
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import ECAlgorithm

from src.api.src.authentication import build_verifier
from src.common.exceptions import SettingsError, Unauthenticated
from src.common.settings import load_settings
from tests.api.tokens import (
    AUDIENCE,
    ISSUER,
    TRUSTED,
    SigningKey,
    jwk_set,
    make_claims,
    make_token,
    new_key,
)


def refusal_of(token: str, **settings: Any) -> str:
    """The error type with which a deployment refuses the token."""
    with pytest.raises(Unauthenticated) as caught:
        verify(token, **settings)
    return caught.value.error_type


def verify(token: str, **settings: Any) -> dict[str, Any]:
    """The token's claims as a deployment's verifier reads them."""
    configured = {
        "env": "staging",
        "database_host": "nowhere.example",
        "database_password": "not-a-default-1",
        "auth_jwt_secret": jwk_set(),
        "auth_jwt_issuer": ISSUER,
        "stripe_secret_key": "sk_live_x",
        "stripe_webhook_secret": "whsec_x",
        **settings,
    }
    return asyncio.run(build_verifier(load_settings(**configured)).verify(token))


def unsigned(claims: dict[str, Any], **header: Any) -> str:
    """A token without a signature, its header as given."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in (header, claims)
    ]
    return ".".join([*parts, ""])


def signed_with_public_key(claims: dict[str, Any]) -> str:
    """The classic: HS256, with the text of the public key as the shared secret."""
    pem = TRUSTED.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    algorithm = jwt.get_algorithm_by_name("HS256")
    head, payload, _ = unsigned(claims, alg="HS256", typ="JWT", kid=TRUSTED.kid).split(".")
    signature = algorithm.sign(f"{head}.{payload}".encode(), pem)
    return f"{head}.{payload}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def signed_with_rsa(claims: dict[str, Any]) -> str:
    """A genuine RS256 token, of a key of the attacker's."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    return jwt.encode(claims, key, "RS256", headers={"kid": TRUSTED.kid})


FORGED = {
    "alg none": unsigned(make_claims(), alg="none", kid=TRUSTED.kid),
    "alg None in capitals": unsigned(make_claims(), alg="NONE", kid=TRUSTED.kid),
    "no alg": unsigned(make_claims(), kid=TRUSTED.kid),
    "HS256 signed with the public key": signed_with_public_key(make_claims()),
    "RS256": signed_with_rsa(make_claims()),
    "another key under our kid": make_token(key=SigningKey("trusted", new_key("x").private)),
    "an unknown kid": make_token(key=new_key("unknown")),
    "our key under a wrong kid": make_token(kid="wrong"),
    "no kid": make_token(kid=None),
    "a kid that is no text": unsigned(make_claims(), alg="ES256", kid={"a": 1}),
    "the signature cut off": make_token().rpartition(".")[0] + ".",
    "a header nested too deeply": base64.urlsafe_b64encode(b"[" * 100_000).decode() + ".e30.",
    "a header that is no object": base64.urlsafe_b64encode(b"[1]").decode() + ".e30.",
    "no JWT": "garbage",
    "nothing": "",
    "not ASCII": "é.ü.ß",
}
WRONG_CLAIMS: dict[str, dict[str, Any]] = {
    "no exp": {"without": ["exp"]},
    "no sub": {"without": ["sub"]},
    "no iss": {"without": ["iss"]},
    "no aud": {"without": ["aud"]},
    "exp is text": {"exp": "tomorrow"},
    "exp is a list": {"exp": [1]},
    "exp is infinite": {"exp": float("inf")},
    "exp is null": {"exp": None},
    "sub is no UUID": {"sub": "ada"},
    "sub is empty": {"sub": ""},
    "sub is a number": {"sub": 7},
    "another issuer": {"iss": "https://evil.example/auth/v1"},
    "an issuer that is a list": {"iss": [ISSUER]},
    "another audience": {"aud": "anon"},
    "audiences without ours": {"aud": ["anon", "service_role"]},
    "not valid yet": {"nbf": time.time() + 3_600},
}


def test_a_right_token_is_accepted() -> None:
    """The counter-test of all refusals below: nothing changed, nothing refused."""
    user_id = uuid.uuid4()
    assert verify(make_token(user_id))["sub"] == str(user_id)
    assert verify(make_token(aud=["other", AUDIENCE]))["aud"] == ["other", AUDIENCE]


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED.keys())
def test_a_forged_token_is_refused(token: str) -> None:
    """The token never chooses the algorithm, and only our keys sign."""
    assert refusal_of(token) == "AUTH_TOKEN_INVALID"


@pytest.mark.parametrize("claims", WRONG_CLAIMS.values(), ids=WRONG_CLAIMS.keys())
def test_a_genuine_token_with_wrong_claims_is_refused(claims: dict[str, Any]) -> None:
    """`exp`, `sub`, issuer and audience are required and checked, whatever their type."""
    assert refusal_of(make_token(**claims)) == "AUTH_TOKEN_INVALID"


def test_changed_claims_are_refused() -> None:
    """The signature covers the claims."""
    head, _, signature = make_token().split(".")
    claims = unsigned(make_claims()).split(".")[1]
    assert refusal_of(f"{head}.{claims}.{signature}") == "AUTH_TOKEN_INVALID"


def test_a_token_expires_after_a_minute_of_leeway() -> None:
    """59 seconds past `exp` still pass, 60 do not."""
    with time_machine.travel("2026-11-22T12:00:00Z", tick=False) as traveller:
        token = make_token(lifetime=100)
        traveller.shift(159)
        assert verify(token)
        traveller.shift(1)
        assert refusal_of(token) == "AUTH_TOKEN_EXPIRED"


def test_keys_rotate() -> None:
    """While the set holds two keys both sign; a key that left the set signs no more."""
    old, new = new_key("old"), new_key("new")
    both = jwk_set(old.public_jwk, new.public_jwk)
    assert verify(make_token(key=old), auth_jwt_secret=both)
    assert verify(make_token(key=new), auth_jwt_secret=both)
    only_new = jwk_set(new.public_jwk)
    assert refusal_of(make_token(key=old), auth_jwt_secret=only_new) == "AUTH_TOKEN_INVALID"


def test_a_key_of_another_kind_in_the_set_signs_nothing() -> None:
    """An RSA key beside ours is passed over; tokens signed with it are refused."""
    rsa_key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    algorithm = jwt.get_algorithm_by_name("RS256")
    rsa_jwk = {**json.loads(algorithm.to_jwk(rsa_key.public_key())), "kid": "rsa"}
    keys = jwk_set(TRUSTED.public_jwk, rsa_jwk)
    token = jwt.encode(make_claims(), rsa_key, "RS256", headers={"kid": "rsa"})
    assert refusal_of(token, auth_jwt_secret=keys) == "AUTH_TOKEN_INVALID"
    assert verify(make_token(), auth_jwt_secret=keys)


def test_issuer_and_audience_may_be_missing_on_a_developers_machine() -> None:
    """Only `ENV=local` relaxes: there neither claim is needed, `exp` and `sub` still are."""
    local = {"env": "local", "auth_jwt_issuer": None}
    assert verify(make_token(without=["iss", "aud"]), **local)
    assert refusal_of(make_token(without=["exp"]), **local) == "AUTH_TOKEN_INVALID"


SYMMETRIC = {"kty": "oct", "k": base64.urlsafe_b64encode(b"s" * 32).decode(), "kid": "hs"}
UNUSABLE: dict[str, dict[str, Any]] = {
    "no set": {"auth_jwt_secret": None},
    "no issuer": {"auth_jwt_issuer": None},
    "a symmetric key": {"auth_jwt_secret": jwk_set(TRUSTED.public_jwk, SYMMETRIC)},
    "a private key": {"auth_jwt_secret": jwk_set(TRUSTED.private_jwk)},
    "a set without keys": {"auth_jwt_secret": '{"keys": []}'},
    "a key without kid": {
        "auth_jwt_secret": jwk_set(ECAlgorithm.to_jwk(TRUSTED.private.public_key(), as_dict=True))
    },
    "a point that is not on the curve": {
        "auth_jwt_secret": jwk_set({**TRUSTED.public_jwk, "x": TRUSTED.public_jwk["y"]})
    },
    "a key without coordinates": {
        "auth_jwt_secret": jwk_set({"kty": "EC", "crv": "P-256", "kid": "k"})
    },
    "no JSON": {"auth_jwt_secret": "-----BEGIN PUBLIC KEY-----"},
    "JSON that is no set": {"auth_jwt_secret": '["keys"]'},
}


@pytest.mark.parametrize("settings", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_an_unsafe_or_unusable_configuration_stops_the_start(settings: dict[str, Any]) -> None:
    """Where ENV is not local, no verifier is built without public P-256 keys and an issuer."""
    with pytest.raises(SettingsError, match="AUTH_JWT_") as caught:
        verify(make_token(), **settings)
    secrets = [TRUSTED.private_jwk["d"], SYMMETRIC["k"]]
    assert not [secret for secret in secrets if secret in str(caught.value)]
