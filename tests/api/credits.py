"""Short ways to move credits over HTTP."""

import uuid
from collections.abc import Mapping
from itertools import count
from typing import Any

import httpx

from src.common.accounts.api_keys import Scope
from tests.fixtures.api import Api

WRITER = (Scope.CREDITS_READ, Scope.CREDITS_SPEND, Scope.CREDITS_GRANT)
GRANT = {"amount": 100, "source": "promo"}
WRITES: dict[str, dict[str, Any]] = {
    "grant": GRANT,
    "spend": {"amount": 1},
    "adjust": {"amount": 1, "reason": "x"},
    "holds": {"amount": 1, "expires_in_seconds": 60},
    "holds/1/capture": {"amount": 1},
    "holds/1/release": {},
    "holds/1/renew": {"expires_in_seconds": 60},
    "entries/1/reverse": {"reason": "x"},
}
"""Each way to move credits, below `/credits/`, with a body it accepts."""
_numbers = count(1)


def fresh_key() -> dict[str, str]:
    """The header with a key nobody has used."""
    return {"Idempotency-Key": f"key-{next(_numbers)}"}


async def post(
    api: Api,
    token: str,
    user_id: uuid.UUID,
    path: str,
    body: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    """One request that moves credits; with a fresh key unless headers are given."""
    sent = fresh_key() if headers is None else headers
    return await api.call("POST", f"/user/{user_id}/credits/{path}", token, json=body, headers=sent)


async def done(
    api: Api, token: str, user_id: uuid.UUID, path: str, body: Mapping[str, Any]
) -> dict[str, Any]:
    """The result of a request that must succeed."""
    answer = await post(api, token, user_id, path, body)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result
