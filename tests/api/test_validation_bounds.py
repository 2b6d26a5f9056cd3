"""What a wrong body costs: an answer of a few lines, whatever was sent, and only to who may ask."""

import json
import uuid
from typing import Any

import pytest

from src.common.accounts.api_keys import Scope
from tests.api.credits import WRITER
from tests.api.tokens import make_token
from tests.fixtures.api import Api, error_type_of, make_api_key, make_user

ANSWER_BYTES_MAX = 8_192
MANY = {f"k{number}": 0 for number in range(80_000)}
"""Almost as many unknown fields as a body may hold."""
LONG = "x" * 900_000
EMPTY: dict[str, Any] = {}


def an_item(**changes: Any) -> dict[str, Any]:
    """An operation of a batch."""
    user_id = str(uuid.UUID(int=1))
    spend = {"operation": "spend", "user_id": user_id, "idempotency_key": "k", "amount": 1}
    return spend | changes


WRONG: dict[str, tuple[str, Any]] = {
    "many unknown fields": ("/user/{user}/credits/spend", MANY),
    "a long unknown field": ("/user/{user}/credits/spend", {LONG: 1}),
    "a long value": ("/user/{user}/credits/grant", {"amount": LONG, "source": LONG}),
    "many unknown fields of a profile": ("/update_profile", MANY),
    "a long field of a profile": ("/update_profile", {LONG: 1}),
    "many unknown fields of a batch": ("/credits/batch", MANY),
    "many empty items": ("/credits/batch", {"items": [EMPTY] * 300_000}),
    "many unknown fields of an item": ("/credits/batch", {"items": [an_item() | MANY]}),
    "unknown fields of many items": (
        "/credits/batch",
        {"items": [an_item(**{f"k{number}": 0 for number in range(40)})] * 1_000},
    ),
    "a long operation": ("/credits/batch", {"items": [an_item(operation=LONG)]}),
    "a long user id": ("/credits/batch", {"items": [an_item(user_id=LONG)]}),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_body_is_answered_briefly(api: Api, name: str) -> None:
    """At most ten errors are told, how many are not, and little of what was sent."""
    path, body = WRONG[name]
    user = await make_user()
    if path == "/update_profile":
        method, token = "PATCH", make_token(user.user_id)
    else:
        method, token = "POST", await make_api_key(*WRITER)
    content = json.dumps(body).encode()[:1_048_000]
    content = content if content.endswith(b"}") else json.dumps(body).encode()
    answer = await api.call(
        method,
        path.format(user=user.user_id),
        token,
        content=content,
        headers={"Idempotency-Key": "k", "Content-Type": "application/json"},
    )
    assert answer.status_code in (413, 422), answer.text[:500]
    assert len(answer.content) < ANSWER_BYTES_MAX
    assert "x" * 200 not in answer.text
    if answer.status_code == 422:
        detail = answer.json()["detail"]
        assert detail["error_type"] == "VALIDATION_ERROR"
        assert 1 <= len(detail["errors"]) <= 10


async def test_more_errors_than_are_told_are_counted(api: Api) -> None:
    """Whoever mends the first ten learns that there were others."""
    body = {f"k{number}": 0 for number in range(15)}
    token = make_token((await make_user()).user_id)
    answer = await api.call("PATCH", "/update_profile", token, json=body)
    detail = answer.json()["detail"]
    assert (len(detail["errors"]), detail["errors_omitted"]) == (10, 5)
    answer = await api.call("PATCH", "/update_profile", token, json={"company": 1})
    assert "errors_omitted" not in answer.json()["detail"]


@pytest.mark.parametrize("body", [{"items": [EMPTY] * 1_000}, {"nonsense": 1}, None])
async def test_who_may_write_nothing_is_told_so_before_a_batch_is_read(api: Api, body: Any) -> None:
    """A key without the scopes, or a user's token: 403, whatever the body says."""
    user = await make_user()
    for token in (await make_api_key(Scope.CREDITS_READ), make_token(user.user_id)):
        answer = await api.call("POST", "/credits/batch", token, json=body)
        assert (answer.status_code, error_type_of(answer)) == (403, "FORBIDDEN")
