"""Short ways to move credits over HTTP."""

import uuid
from collections.abc import Mapping
from itertools import count
from typing import Any

import httpx

from tests.fixtures.api import Api

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
