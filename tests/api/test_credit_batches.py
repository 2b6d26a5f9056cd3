"""Many operations in one request: each with its own key, scope and outcome, through the engine."""

import asyncio
import uuid
from typing import Any

import httpx
import pytest
from dirty_equals import IsPartialDict

from src.api.src.schemas.credit_batches import ITEMS_MAX
from src.common.accounts.api_keys import Scope, list_api_keys, revoke_api_key
from src.common.async_database import run_in_async_database_transaction
from tests.api.credits import WRITER
from tests.fixtures.api import Api, StartApi, balance_of, error_type_of, make_api_key, make_user


def an_item(operation: str, user_id: uuid.UUID, key: str, amount: int = 1) -> dict[str, Any]:
    """An operation of a batch."""
    item = {"operation": operation, "user_id": str(user_id), "idempotency_key": key}
    return item | {"amount": amount} | ({"source": "promo"} if operation == "grant" else {})


async def ask(api: Api, token: str, *items: dict[str, Any]) -> httpx.Response:
    """One request."""
    return await api.call("POST", "/credits/batch", token, json={"items": list(items)})


async def outcomes(api: Api, token: str, *items: dict[str, Any]) -> list[dict[str, Any]]:
    """What became of each item."""
    answer = await ask(api, token, *items)
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


async def test_each_item_has_its_own_outcome(start_api: StartApi) -> None:
    """Done, refused, unknown and repeated side by side, one user's in their order."""
    api = await start_api()
    token = await make_api_key(*WRITER)
    ada, bob = await make_user(), await make_user()
    results = await outcomes(
        api,
        token,
        an_item("grant", ada.user_id, "g", 5),
        an_item("spend", ada.user_id, "s", 3),
        an_item("spend", ada.user_id, "t", 3),
        an_item("spend", ada.user_id, "s", 3),
        an_item("spend", ada.user_id, "s", 4),
        an_item("spend", uuid.uuid4(), "s"),
        an_item("grant", bob.user_id, "g", 7),
    )
    assert [each["status"] for each in results] == [200, 200, 402, 200, 409, 404, 200]
    assert [each["replayed"] for each in results] == [False] * 3 + [True] + [False] * 3
    assert results[2]["error"] == IsPartialDict(
        error_type="INSUFFICIENT_CREDITS", required=3, available=2
    )
    assert results[3]["result"] == results[1]["result"]
    assert (await balance_of(ada.user_id), await balance_of(bob.user_id)) == (2, 7)


async def test_entries_are_undone_side_by_side(start_api: StartApi) -> None:
    """In the order asked, also what the same request spends; others' with `credits:grant` alone."""
    api = await start_api()
    token, user = await make_api_key(*WRITER), await make_user()
    spender = await make_api_key(Scope.CREDITS_SPEND, service_name="spender")

    def undoing(seq: int, key: str, **others: object) -> dict[str, Any]:
        asked = {"operation": "reverse", "user_id": str(user.user_id), "idempotency_key": key}
        return asked | {"seq": seq, "reason": "x"} | others

    results = await outcomes(
        api,
        token,
        an_item("grant", user.user_id, "g", 50),
        an_item("spend", user.user_id, "s", 30),
        undoing(2, "a", amount=10),
        undoing(2, "b", amount=21),
        undoing(1, "c", as_far_as_possible=True),
    )
    assert [each["status"] for each in results] == [200, 200, 200, 422, 200]
    assert results[2]["result"] == IsPartialDict(amount=10, spent=None)
    assert results[3]["error"] == IsPartialDict(error_type="REVERSAL_EXCEEDS_ENTRY", reversible=20)
    assert results[4]["result"] == IsPartialDict(amount=-30, spent=20)
    assert "spent" not in results[1]["result"]
    [refused] = await outcomes(api, spender, undoing(2, "d"))
    assert (refused["status"], refused["error"]["error_type"]) == (403, "FORBIDDEN")


async def test_an_item_gives_no_more_than_the_operator_allows(start_api: StartApi) -> None:
    """422 above CREDITS_MANUAL_LIMIT, for that item alone."""
    api = await start_api(CREDITS_MANUAL_LIMIT="10")
    token, user = await make_api_key(*WRITER), await make_user()
    items = [an_item("grant", user.user_id, f"g{amount}", amount) for amount in (10, 11, 2**31 - 1)]
    results = await outcomes(api, token, *items)
    assert [each["status"] for each in results] == [200, 422, 422]
    assert results[1]["error"] == IsPartialDict(error_type="VALIDATION_ERROR", limit=10)
    assert await balance_of(user.user_id) == 10


async def test_an_item_needs_the_scope_of_its_endpoint(start_api: StartApi) -> None:
    """A key that may only spend gives nothing, and its spends are done."""
    api = await start_api()
    token = await make_api_key(Scope.CREDITS_SPEND)
    user = await make_user(credits_balance=5)
    results = await outcomes(
        api, token, an_item("grant", user.user_id, "g"), an_item("spend", user.user_id, "s")
    )
    assert [each["status"] for each in results] == [403, 200]
    assert results[0]["error"]["error_type"] == "FORBIDDEN"
    assert await balance_of(user.user_id) == 4


async def test_a_whole_batch_again_is_all_replays(start_api: StartApi) -> None:
    """The largest batch, twice and both at once: everything is done once."""
    api = await start_api()
    token = await make_api_key(*WRITER)
    user = await make_user(credits_balance=ITEMS_MAX)
    items = [an_item("spend", user.user_id, f"s{n}") for n in range(ITEMS_MAX)]
    both = await asyncio.gather(outcomes(api, token, *items), outcomes(api, token, *items))
    for one, other in zip(*both, strict=True):
        assert one["result"] == other["result"]
        assert {one["replayed"], other["replayed"]} == {True, False}
    assert await balance_of(user.user_id) == 0


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": 0}, "body.items.1.spend.amount"),
        ({"amount": 1.5}, "body.items.1.spend.amount"),
        ({"idempotency_key": ""}, "body.items.1.spend.idempotency_key"),
        ({"operation": "steal"}, "body.items.1"),
    ],
)
async def test_a_wrong_item_is_named_and_nothing_is_done(
    start_api: StartApi, change: dict[str, Any], field: str
) -> None:
    """422 for the request as a whole, before any item is done."""
    api = await start_api()
    token = await make_api_key(*WRITER)
    user = await make_user(credits_balance=5)
    good = an_item("spend", user.user_id, "s")
    answer = await ask(api, token, good, good | change)
    assert (answer.status_code, error_type_of(answer)) == (422, "VALIDATION_ERROR")
    assert [each["field"] for each in answer.json()["detail"]["errors"]] == [field]
    assert await balance_of(user.user_id) == 5


async def test_more_than_the_queue_holds_is_busy_item_by_item(start_api: StartApi) -> None:
    """What did not fit was not done, and is done when asked again with its key."""
    api = await start_api(CREDITS_ENGINE_QUEUE_MAX="10")
    token = await make_api_key(*WRITER)
    user = await make_user(credits_balance=50)
    items = [an_item("spend", user.user_id, f"s{n}") for n in range(25)]
    first = await outcomes(api, token, *items)
    statuses = [each["status"] for each in first]
    assert statuses == [200] * 10 + [503] * 15
    assert first[10]["error"]["error_type"] == "ENGINE_BUSY"
    assert await balance_of(user.user_id) == 40
    rest = await outcomes(api, token, *items[10:20]) + await outcomes(api, token, *items[20:])
    assert [each["status"] for each in rest] == [200] * 15
    assert await balance_of(user.user_id) == 25


async def test_a_revoked_key_is_believed_for_as_long_as_the_setting_says(
    start_api: StartApi,
) -> None:
    """Within `API_KEY_CACHE_SECONDS` no look-up is made; with 0 a revoked key ends at once."""
    for seconds, status in (("5", 200), ("0", 401)):
        api = await start_api(API_KEY_CACHE_SECONDS=seconds)
        token = await make_api_key(*WRITER, service_name=f"cached-{seconds}")
        user = await make_user(credits_balance=5)
        path = f"/user/{user.user_id}/credits"
        assert (await api.get(path, token)).status_code == 200

        await run_in_async_database_transaction(
            lambda session: [revoke_api_key(session, key.key_id) for key in list_api_keys(session)]
        )
        assert (await api.get(path, token)).status_code == status
