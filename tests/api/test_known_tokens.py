"""A token that was found genuine is not verified again, and is believed no longer for it."""

import time
import uuid
from typing import Any

import jwt
import pytest
import time_machine
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from src.api.src import authentication
from src.api.src.authentication import TokenVerifier
from src.api.src.signing_keys import ALGORITHM, ConfiguredKeys
from src.common.exceptions import Unauthenticated
from src.common.models.user import User
from tests.api.tokens import (
    AUDIENCE,
    ISSUER,
    TRUSTED,
    SigningKey,
    make_token,
    new_key,
)
from tests.fixtures.api import Api, error_type_of, make_user


def a_verifier(keys: dict[str, jwt.PyJWK] | None = None) -> TokenVerifier:
    """A deployment's, with a set of keys that the test may change."""
    found = keys if keys is not None else {TRUSTED.kid: public_key(TRUSTED)}
    return TokenVerifier(ConfiguredKeys(found), ISSUER, AUDIENCE, is_local=False)


def public_key(key: SigningKey) -> jwt.PyJWK:
    """As a set has it."""
    return jwt.PyJWK(key.public_jwk, algorithm=ALGORITHM)


async def answer_of(verifier: TokenVerifier, token: str) -> str:
    """`genuine`, or the error type."""
    try:
        await verifier.verify(token)
    except Unauthenticated as refused:
        return refused.error_type
    return "genuine"


async def test_it_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same claims again, which nobody can change for others; another token is looked at."""
    verifier = a_verifier()
    known, other = make_token(), make_token()
    claims = await verifier.verify(known)

    def decode(*_arguments: Any, **_options: Any) -> None:
        raise jwt.InvalidSignatureError

    monkeypatch.setattr(jwt, "decode", decode)
    again = await verifier.verify(known)
    assert again == claims
    again["sub"] = "somebody else"
    assert await verifier.verify(known) == claims
    assert await answer_of(verifier, other) == "AUTH_TOKEN_INVALID"


async def test_it_expires_to_the_second() -> None:
    """At the end of its leeway, known or not."""
    now = time.time()
    known, unknown = a_verifier(), a_verifier()
    token = make_token(lifetime=30)
    assert await answer_of(known, token) == "genuine"
    for seconds, expected in ((88, "genuine"), (92, "AUTH_TOKEN_EXPIRED")):
        with time_machine.travel(now + seconds, tick=False):
            assert await answer_of(known, token) == expected
            assert await answer_of(unknown, token) == expected


@pytest.mark.parametrize("replaced_by", [{}, {TRUSTED.kid: public_key(new_key(TRUSTED.kid))}])
async def test_it_goes_with_its_key(replaced_by: dict[str, jwt.PyJWK]) -> None:
    """Withdrawn, or replaced by another of the same `kid`."""
    keys = {TRUSTED.kid: public_key(TRUSTED)}
    verifier = a_verifier(keys)
    token = make_token()
    assert await answer_of(verifier, token) == "genuine"
    keys.clear()
    keys.update(replaced_by)
    assert await answer_of(verifier, token) == "AUTH_TOKEN_INVALID"


async def test_its_key_may_be_fetched_anew() -> None:
    """The same key as another object: verified again, and known again."""
    keys = {TRUSTED.kid: public_key(TRUSTED)}
    verifier = a_verifier(keys)
    token = make_token()
    assert await answer_of(verifier, token) == "genuine"
    keys[TRUSTED.kid] = public_key(TRUSTED)
    assert await answer_of(verifier, token) == "genuine"
    assert [each.key for each in verifier.known.values()] == [keys[TRUSTED.kid]]


async def test_only_genuine_ones_of_a_usual_length_are_known_and_not_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What strangers send fills no memory."""
    monkeypatch.setattr(authentication, "KNOWN_TOKENS_MAX", 3)
    verifier = a_verifier()
    for token in (make_token(key=new_key(TRUSTED.kid)), make_token(lifetime=-100), "garbage"):
        assert await answer_of(verifier, token) != "genuine"
    long = make_token(user_metadata={"x": "x" * 5_000})
    assert await answer_of(verifier, long) == "genuine"
    assert len(verifier.known) == 0
    for _ in range(5):
        assert await answer_of(verifier, make_token()) == "genuine"
    assert len(verifier.known) == 3


async def test_what_its_user_may_is_read_each_time(api: Api, async_db: AsyncSession) -> None:
    """Deactivated or made an admin, from the next request on."""
    user, other = await make_user(), await make_user()
    token = make_token(user.user_id)
    own, foreign = f"/user/{user.user_id}/credits", f"/user/{other.user_id}/credits"
    assert (await api.get(own, token)).status_code == 200
    assert error_type_of(await api.get(foreign, token)) == "FORBIDDEN"
    await change(async_db, user.user_id, user_type="admin")
    assert (await api.get(foreign, token)).status_code == 200
    await change(async_db, user.user_id, is_active=False)
    for path in (own, foreign):
        assert error_type_of(await api.get(path, token)) == "USER_INACTIVE"


async def change(db: AsyncSession, user_id: uuid.UUID, **values: Any) -> None:
    """As a command of an operator's does."""
    await db.execute(update(User).where(User.user_id == user_id).values(**values))
    await db.commit()
