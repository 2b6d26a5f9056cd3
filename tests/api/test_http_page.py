"""The HTTP page is true: who may do what, and its example."""

import uuid

import pytest

from scripts.http_chapters import (
    CHAPTERS,
    EXAMPLE_ANSWER,
    EXAMPLE_BODY,
    EXAMPLE_INSTANT,
    Access,
    Operation,
)
from src.common.accounts.api_keys import Scope
from tests.api.credits import fresh_key, post
from tests.api.tokens import make_token
from tests.fixtures.api import Api, make_api_key, make_user

REFUSED = {401, 403}
OPERATIONS = [operation for chapter in CHAPTERS for operation in chapter.operations]


def expected(access: Access) -> set[str]:
    """Who gets further than 401 and 403."""
    users = {"none": set[str](), "own": {"themselves"}, "any": {"themselves", "another"}}
    everybody = {"nobody"} if access.is_open else set[str]()
    return users[access.users] | {str(scope) for scope in access.scopes} | everybody


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.address)
async def test_who_may(api: Api, operation: Operation) -> None:
    """Asked without a token, as the user, as another, and with each scope alone."""
    user, another = await make_user(), await make_user()
    callers: dict[str, str | None] = {"nobody": None}
    if not operation.access.is_open:
        callers["themselves"] = make_token(user.user_id)
        callers["another"] = make_token(another.user_id)
        for scope in Scope:
            callers[scope] = await make_api_key(scope, service_name=scope)
    method, path = operation.address.split()
    named = path.format(
        user_id=user.user_id,
        seq=1,
        session_id="cs_test_1",
        transaction_id=uuid.uuid4(),
        name="liability",
    )
    got_further: set[str] = set()
    for caller, token in callers.items():
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        body = "" if method == "GET" else "{}"
        answer = await api.client.request(method, named, headers=headers, content=body)
        if answer.status_code not in REFUSED:
            got_further.add(str(caller))
    assert got_further == expected(operation.access)


async def test_the_example_goes_as_shown(api: Api) -> None:
    """500 credits, 10 of them spent; only the instant differs."""
    user = await make_user()
    token = await make_api_key(Scope.CREDITS_GRANT, Scope.CREDITS_SPEND, service_name="slides")
    given = {"amount": 500, "source": "promo"}
    await post(api, token, user.user_id, "grant", given, fresh_key())
    answer = await post(api, token, user.user_id, "spend", EXAMPLE_BODY, fresh_key())
    told = answer.json()
    assert len(told.pop("created_at")) == len(EXAMPLE_INSTANT)
    assert told | {"created_at": EXAMPLE_INSTANT} == EXAMPLE_ANSWER
