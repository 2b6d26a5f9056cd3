"""Undoing entries over HTTP: what it answers, what it refuses, who may."""

import asyncio
import uuid
from typing import Any

import pytest

from src.common.accounts.api_keys import Scope
from tests.api.credits import GRANT, WRITER, done, fresh_key, post
from tests.fixtures.api import Api, balance_of, error_type_of, make_api_key, make_user

WHY = {"reason": "the slides failed"}


async def test_a_spend_goes_back_in_parts(api: Api) -> None:
    """The result of a reversal, and of its replay; the journal names the entry."""
    user, token = await make_user(), await make_api_key(*WRITER)
    await done(api, token, user.user_id, "grant", GRANT)
    await done(api, token, user.user_id, "spend", {"amount": 30})
    key = fresh_key()
    body = {"amount": 10, **WHY}
    first = await post(api, token, user.user_id, "entries/2/reverse", body, key)
    again = await post(api, token, user.user_id, "entries/2/reverse", body, key)
    assert (
        first.json()
        | {
            "seq": 3,
            "kind": "reversal",
            "amount": 10,
            "captured": None,
            "balance": 80,
            "spent": None,
        }
        == first.json()
    )
    assert (again.json(), again.headers["Idempotent-Replayed"]) == (first.json(), "true")
    assert (await done(api, token, user.user_id, "entries/2/reverse", WHY))["amount"] == 20
    history = await api.call("GET", f"/user/{user.user_id}/credits/entries?limit=1", token)
    [entry] = history.json()["items"]
    assert (entry["related_seq"], entry["reference"]) == (2, "the slides failed")


async def test_a_grant_is_taken_back_and_the_answer_says_what_was_spent(api: Api) -> None:
    """Also a dry run's, which does nothing."""
    user, token = await make_user(), await make_api_key(*WRITER)
    await done(api, token, user.user_id, "grant", GRANT)
    await done(api, token, user.user_id, "spend", {"amount": 30})
    body = {"as_far_as_possible": True, **WHY}
    foreseen = await post(api, token, user.user_id, "entries/1/reverse?dry_run=true", body, {})
    assert (foreseen.json()["amount"], foreseen.json()["spent"]) == (-70, 30)
    assert foreseen.json()["entries"][0]["postings"] == [
        {"lot_seq": 1, "amount": -70, "remaining_after": 0}
    ]
    assert await balance_of(user.user_id) == 70
    result = await done(api, token, user.user_id, "entries/1/reverse", body)
    assert (result["amount"], result["spent"], result["balance"]) == (-70, 30, 0)


REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("entries/9/reverse", WHY, 404, "ENTRY_NOT_FOUND"),
    ("entries/3/reverse", WHY, 409, "ENTRY_NOT_REVERSIBLE"),
    ("entries/2/reverse", {"amount": 31, **WHY}, 422, "REVERSAL_EXCEEDS_ENTRY"),
    ("entries/1/reverse", WHY, 402, "INSUFFICIENT_CREDITS"),
    ("entries/2/reverse", {}, 422, "VALIDATION_ERROR"),
    ("entries/2/reverse", {"amount": 0, **WHY}, 422, "VALIDATION_ERROR"),
    ("entries/0/reverse", WHY, 422, "VALIDATION_ERROR"),
    ("entries/2/reverse", {"amount": 1, "as_far_as_possible": True, **WHY}, 422,
     "VALIDATION_ERROR"),
]  # fmt: skip


async def test_what_is_refused(api: Api) -> None:
    """404, 409 and 422 by what is wrong; nothing is done."""
    user, token = await make_user(), await make_api_key(*WRITER)
    await done(api, token, user.user_id, "grant", GRANT)
    await done(api, token, user.user_id, "spend", {"amount": 30})
    await done(api, token, user.user_id, "entries/2/reverse", {"amount": 1, **WHY})
    for path, body, status, error_type in REFUSED:
        answer = await post(api, token, user.user_id, path, body)
        assert (answer.status_code, error_type_of(answer)) == (status, error_type), path
    assert await balance_of(user.user_id) == 71
    nobody = await post(api, token, uuid.uuid4(), "entries/1/reverse", WHY)
    assert (nobody.status_code, error_type_of(nobody)) == (404, "USER_NOT_FOUND")


@pytest.mark.parametrize("suffix", ["", "?dry_run=true"])
async def test_a_service_that_spends_undoes_its_own_spends_only(api: Api, suffix: str) -> None:
    """Of others, and what was given, needs `credits:grant`; that undoes anything."""
    user = await make_user(credits_balance=0)
    giver = await make_api_key(*WRITER, service_name="giver")
    spender = await make_api_key(Scope.CREDITS_SPEND, service_name="spender")
    await done(api, giver, user.user_id, "grant", GRANT)
    await done(api, giver, user.user_id, "spend", {"amount": 10})
    await done(api, spender, user.user_id, "spend", {"amount": 20})
    for seq in (1, 2):
        answer = await post(api, spender, user.user_id, f"entries/{seq}/reverse{suffix}", WHY)
        assert (answer.status_code, error_type_of(answer)) == (403, "FORBIDDEN")
    for token, seq, amount in ((spender, 3, 5), (giver, 3, 6), (giver, 2, 7)):
        path = f"entries/{seq}/reverse{suffix}"
        assert (await done(api, token, user.user_id, path, {"amount": amount, **WHY}))[
            "amount"
        ] == amount


async def test_a_spender_undoes_what_its_service_did_under_an_older_key(api: Api) -> None:
    """A spend, what it captured of a hold, and what it captured too late: all are its own."""
    user = await make_user()
    giver = await make_api_key(*WRITER, service_name="giver")
    old, new = [await make_api_key(Scope.CREDITS_SPEND, service_name="slides") for _ in range(2)]
    await done(api, giver, user.user_id, "grant", GRANT)
    await done(api, old, user.user_id, "spend", {"amount": 10})
    await done(api, old, user.user_id, "holds", {"amount": 20, "expires_in_seconds": 600})
    await done(api, old, user.user_id, "holds/3/capture", {"amount": 15})
    await done(api, old, user.user_id, "holds", {"amount": 30, "expires_in_seconds": 1})
    await asyncio.sleep(1.1)
    late = {"amount": 25, "if_expired": "retake"}
    retaken = await done(api, old, user.user_id, "holds/5/capture", late)
    for seq, amount in ((2, 10), (3, 15), (retaken["seq"], 25)):
        assert retaken["kind"] == "spend"
        undone = await done(api, new, user.user_id, f"entries/{seq}/reverse", WHY)
        assert undone["amount"] == amount
    assert await balance_of(user.user_id) == 100
    answer = await post(api, new, user.user_id, "entries/1/reverse", WHY)
    assert error_type_of(answer) == "FORBIDDEN"
