"""Moving credits over HTTP: results, refusals, keys, dry runs, who may."""

import asyncio
import json
import uuid
from typing import Any

import pytest
from dirty_equals import IsDatetime
from sqlalchemy import func, select

from src.common.models.credit_entry import CreditEntry
from tests.api.credits import GRANT, WRITER, WRITES, done, fresh_key, post
from tests.fixtures.api import (
    Api,
    StartApi,
    balance_of,
    error_type_of,
    fetch,
    make_api_key,
    make_user,
)


async def entries_written() -> int:
    """How many entries there are at all."""
    return await fetch(select(func.count()).select_from(CreditEntry))


EXPIRING_GRANT = {"amount": 5, "source": "promo", "expires_at": "2100-01-31T14:00:00+02:00"}


async def test_each_operation_answers_its_own_entry(api: Api) -> None:
    """Rule 2's result and nothing else: seq, kind, amount, captured, balance and two instants."""
    user, token = await make_user(), await make_api_key(*WRITER)
    steps: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("grant", GRANT, {"kind": "grant", "amount": 100, "balance": 100}),
        ("spend", {"amount": 10}, {"kind": "spend", "amount": -10, "balance": 90}),
        ("adjust", {"amount": 5, "reason": "x"}, {"kind": "adjustment", "balance": 95}),
        ("adjust", {"amount": -5, "reason": "x"}, {"kind": "adjustment", "balance": 90}),
        ("holds", {"amount": 40, "expires_in_seconds": 60}, {"kind": "hold", "balance": 50}),
        ("holds/5/capture", {"amount": 10, "final": False}, {"captured": 10, "balance": 50}),
        ("holds/5/renew", {"expires_in_seconds": 90}, {"kind": "renewal", "amount": 0}),
        ("holds/5/capture", {"amount": 5}, {"kind": "capture", "amount": 25, "captured": 5}),
        ("holds", {"amount": 1, "expires_in_seconds": 60}, {"balance": 74}),
        ("holds/9/release", {}, {"kind": "release", "amount": 1, "balance": 75}),
        ("grant", EXPIRING_GRANT, {"balance": 80, "expires_at": "2100-01-31T12:00:00Z"}),
    ]
    for seq, (path, body, expected) in enumerate(steps, start=1):
        result = await done(api, token, user.user_id, path, body)
        assert result | expected == result, path
        assert result["seq"] == seq
        expiring = path == "holds" or path.endswith("renew") or "expires_at" in body
        assert result["expires_at"] == (IsDatetime(iso_string=True) if expiring else None)
        assert result["created_at"] == IsDatetime(iso_string=True)
        assert set(result) == {
            "seq", "kind", "amount", "captured", "balance", "created_at", "expires_at"
        }  # fmt: skip
    assert await balance_of(user.user_id) == 80


async def test_a_release_needs_no_body(api: Api) -> None:
    """`{}` and nothing at all mean the same."""
    user, token = await make_user(), await make_api_key(*WRITER)
    await done(api, token, user.user_id, "grant", GRANT)
    await done(api, token, user.user_id, "holds", {"amount": 5, "expires_in_seconds": 60})
    path = f"/user/{user.user_id}/credits/holds/2/release"
    answer = await api.call("POST", path, token, headers=fresh_key())
    assert (answer.status_code, answer.json()["kind"]) == (200, "release")


async def test_a_grant_s_expiry_is_answered_for_ever(api: Api) -> None:
    """Also to a replay, once the credits are spent; in UTC, however it was written."""
    user, token = await make_user(), await make_api_key(*WRITER)
    key = fresh_key()
    first = await post(api, token, user.user_id, "grant", EXPIRING_GRANT, key)
    assert first.json()["expires_at"] == "2100-01-31T12:00:00Z"
    await done(api, token, user.user_id, "spend", {"amount": 5})
    again = await post(api, token, user.user_id, "grant", EXPIRING_GRANT, key)
    assert again.json() == first.json()


async def test_a_replay_answers_the_same_and_says_so(api: Api) -> None:
    """The first result, whatever has happened since, with `Idempotent-Replayed: true`."""
    user, token = await make_user(), await make_api_key(*WRITER)
    await done(api, token, user.user_id, "grant", GRANT)
    key = fresh_key()
    body = {"amount": 30, "expires_in_seconds": 60}
    first = await post(api, token, user.user_id, "holds", body, key)
    await done(api, token, user.user_id, "holds/2/release", {})
    again = await post(api, token, user.user_id, "holds", body, key)
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (again.status_code, again.json()) == (200, first.json())
    assert await balance_of(user.user_id) == 100


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("spend", {"amount": 11}),
        ("spend", {"amount": 10, "reference": "other"}),
        ("holds", {"amount": 10, "expires_in_seconds": 60}),
        ("adjust", {"amount": -10, "reason": "other"}),
    ],
)
async def test_a_key_of_another_request_is_refused(
    api: Api, path: str, body: dict[str, Any]
) -> None:
    """409 IDEMPOTENCY_KEY_REUSED, and nothing is done."""
    user, token = await make_user(), await make_api_key(*WRITER)
    await done(api, token, user.user_id, "grant", GRANT)
    key = fresh_key()
    assert (await post(api, token, user.user_id, "spend", {"amount": 10}, key)).status_code == 200
    answer = await post(api, token, user.user_id, path, body, key)
    assert (answer.status_code, error_type_of(answer)) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert await balance_of(user.user_id) == 90


async def test_metadata_does_not_make_another_request(api: Api) -> None:
    """The same key and amount with other notes is a replay."""
    user, token = await make_user(), await make_api_key(*WRITER)
    key = fresh_key()
    await post(api, token, user.user_id, "grant", {**GRANT, "metadata": {"try": 1}}, key)
    again = await post(api, token, user.user_id, "grant", {**GRANT, "metadata": {"try": 2}}, key)
    assert again.headers["Idempotent-Replayed"] == "true"


async def test_a_refusal_leaves_the_key_free(api: Api) -> None:
    """The very same request succeeds once there are credits."""
    user, token = await make_user(), await make_api_key(*WRITER)
    key = fresh_key()
    refused = await post(api, token, user.user_id, "spend", {"amount": 10}, key)
    assert refused.status_code == 402
    await done(api, token, user.user_id, "grant", GRANT)
    answer = await post(api, token, user.user_id, "spend", {"amount": 10}, key)
    assert (answer.status_code, answer.json()["balance"]) == (200, 90)
    assert "Idempotent-Replayed" not in answer.headers


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": ""}])
async def test_every_write_wants_a_key(api: Api, path: str, headers: dict[str, str]) -> None:
    """400 IDEMPOTENCY_KEY_REQUIRED, before anything is looked up."""
    token = await make_api_key(*WRITER)
    answer = await post(api, token, uuid.uuid4(), path, WRITES[path], headers)
    assert (answer.status_code, error_type_of(answer)) == (400, "IDEMPOTENCY_KEY_REQUIRED")


@pytest.mark.parametrize("key", ["~purchase:cs_1", "~", "k" * 256])
async def test_keys_of_ours_and_endless_ones_are_refused(api: Api, key: str) -> None:
    """422 VALIDATION_ERROR: what begins with `~` is the ledger's own."""
    user, token = await make_user(), await make_api_key(*WRITER)
    answer = await post(api, token, user.user_id, "grant", GRANT, {"Idempotency-Key": key})
    assert (answer.status_code, error_type_of(answer)) == (422, "VALIDATION_ERROR")


async def test_a_dry_run_says_what_would_be_done_and_does_nothing(api: Api) -> None:
    """Result and entries with their lots; no key is taken, and one that is sent stays free."""
    user, token = await make_user(), await make_api_key(*WRITER)
    await done(api, token, user.user_id, "grant", {"amount": 5, "source": "promo"})
    late = {"amount": 50, "source": "subscription", "priority": 100}
    await done(api, token, user.user_id, "grant", late)
    key = fresh_key()
    for headers in ({}, key):
        seen = await post(api, token, user.user_id, "spend?dry_run=true", {"amount": 8}, headers)
        result = seen.json()
        assert (seen.status_code, result["amount"], result["balance"]) == (200, -8, 47)
        [entry] = result["entries"]
        assert entry["postings"] == [
            {"lot_seq": 1, "amount": -5, "remaining_after": 0},
            {"lot_seq": 2, "amount": -3, "remaining_after": 47},
        ]
    assert await balance_of(user.user_id) == 55
    answer = await post(api, token, user.user_id, "spend", {"amount": 8}, key)
    assert "Idempotent-Replayed" not in answer.headers
    assert result == {**answer.json(), "created_at": result["created_at"], "entries": [entry]}


@pytest.mark.parametrize("path", WRITES)
async def test_every_write_has_a_dry_run(api: Api, path: str) -> None:
    """Nothing is written by any of them, refused or not."""
    user, token = await make_user(), await make_api_key(*WRITER)
    answer = await post(api, token, user.user_id, f"{path}?dry_run=true", WRITES[path], {})
    expected = {"grant": 200, "adjust": 200, "spend": 402, "holds": 402}
    assert answer.status_code == expected.get(path, 404)
    assert await entries_written() == 0


async def test_too_few_credits_are_402_with_both_figures(api: Api) -> None:
    """`required` and `available`, for spends, holds and downward adjustments."""
    user, token = await make_user(), await make_api_key(*WRITER)
    await done(api, token, user.user_id, "grant", {"amount": 7, "source": "promo"})
    for path, body in (
        ("spend", {"amount": 8}),
        ("holds", {"amount": 8, "expires_in_seconds": 60}),
        ("adjust", {"amount": -8, "reason": "x"}),
    ):
        answer = await post(api, token, user.user_id, path, body)
        assert (answer.status_code, error_type_of(answer)) == (402, "INSUFFICIENT_CREDITS")
        detail = answer.json()["detail"]
        assert (detail["required"], detail["available"]) == (8, 7)


async def test_the_ledgers_refusals_have_their_status(api: Api) -> None:
    """404, 409 and 422 where the HTTP page lists them."""
    user, token = await make_user(), await make_api_key(*WRITER)
    idle = await make_user(is_active=False)
    full = await make_user(credits_balance=2**31 - 1)
    await done(api, token, user.user_id, "grant", GRANT)
    await done(api, token, idle.user_id, "grant", GRANT)
    await done(api, token, user.user_id, "holds", {"amount": 5, "expires_in_seconds": 60})
    refusals: list[tuple[uuid.UUID, str, dict[str, Any], int, str]] = [
        (user.user_id, "holds/1/release", {}, 404, "HOLD_NOT_FOUND"),
        (user.user_id, "holds/2/capture", {"amount": 6}, 422, "CAPTURE_EXCEEDS_HOLD"),
        (uuid.uuid4(), "spend", {"amount": 1}, 404, "USER_NOT_FOUND"),
        (idle.user_id, "spend", {"amount": 1}, 403, "USER_INACTIVE"),
        (full.user_id, "grant", GRANT, 422, "BALANCE_LIMIT_EXCEEDED"),
        (user.user_id, "grant", {**GRANT, "expires_at": "2020-01-01T00:00:00Z"}, 422,
         "VALIDATION_ERROR"),
    ]  # fmt: skip
    for user_id, path, body, status, error_type in refusals:
        answer = await post(api, token, user_id, path, body)
        assert (answer.status_code, error_type_of(answer)) == (status, error_type), path
    await done(api, token, user.user_id, "holds/2/release", {})
    for path in ("capture", "release", "renew"):
        answer = await post(api, token, user.user_id, f"holds/2/{path}", WRITES[f"holds/1/{path}"])
        assert (answer.status_code, error_type_of(answer)) == (409, "HOLD_CLOSED")


@pytest.mark.parametrize("suffix", ["", "?dry_run=true"])
async def test_no_more_is_given_at_once_than_the_operator_allows(api: Api, suffix: str) -> None:
    """422 above CREDITS_MANUAL_LIMIT, for grants and adjustments up; taking has no such limit."""
    user, token = await make_user(credits_balance=1_000_000), await make_api_key(*WRITER)
    for path, body in (("grant", GRANT), ("adjust", {"reason": "x"})):
        answer = await post(api, token, user.user_id, path + suffix, {**body, "amount": 100_001})
        assert (answer.status_code, error_type_of(answer)) == (422, "VALIDATION_ERROR")
        assert answer.json()["detail"]["limit"] == 100_000
        answer = await post(api, token, user.user_id, path + suffix, {**body, "amount": 100_000})
        assert answer.status_code == 200
    body = {"reason": "x", "amount": -100_001}
    assert (await post(api, token, user.user_id, "adjust" + suffix, body)).status_code == 200


async def test_a_hundred_open_holds_are_the_most(api: Api) -> None:
    """The next is 409 TOO_MANY_HOLDS."""
    user, token = await make_user(), await make_api_key(*WRITER)
    await done(api, token, user.user_id, "grant", {"amount": 200, "source": "promo"})
    body = {"amount": 1, "expires_in_seconds": 60}
    for _ in range(100):
        await done(api, token, user.user_id, "holds", body)
    answer = await post(api, token, user.user_id, "holds", body)
    assert (answer.status_code, error_type_of(answer)) == (409, "TOO_MANY_HOLDS")


WRONG: list[tuple[str, Any]] = [
    *[("spend", {"amount": amount}) for amount in (0, -1, 1.0, 1.5, "1", True, None, 2**31)],
    ("spend", {}),
    ("spend", []),
    ("spend", {"amount": 1, "amuont": 2}),
    ("spend", {"amount": 1, "reference": ""}),
    ("spend", {"amount": 1, "reference": "a" * 256}),
    ("spend", {"amount": 1, "reference": "a\x00"}),
    ("spend", {"amount": 1, "reference": 7}),
    ("spend", {"amount": 1, "metadata": []}),
    ("spend", {"amount": 1, "metadata": {"a": "b" * 17_000}}),
    ("spend", {"amount": 1, "metadata": {"a": "\x00"}}),
    ("grant", {"amount": 1}),
    ("grant", {**GRANT, "source": "opening"}),
    ("grant", {**GRANT, "source": "purchase"}),
    ("grant", {**GRANT, "source": "gift"}),
    ("grant", {**GRANT, "priority": -1}),
    ("grant", {**GRANT, "priority": 32_768}),
    ("grant", {**GRANT, "priority": 1.0}),
    ("grant", {**GRANT, "expires_at": "2030-01-01T00:00:00"}),
    ("grant", {**GRANT, "expires_at": 1_900_000_000}),
    ("grant", {**GRANT, "expires_at": "tomorrow"}),
    ("grant", {**GRANT, "expires_at": "9999-12-31T23:59:59-12:00"}),
    ("grant", {**GRANT, "expires_at": "0001-01-01T00:00:00+12:00"}),
    ("adjust", {"amount": 0, "reason": "x"}),
    ("adjust", {"amount": 1}),
    ("adjust", {"amount": 1, "reason": ""}),
    ("adjust", {"amount": 1.0, "reason": "x"}),
    ("adjust", {"amount": -(2**31), "reason": "x"}),
    *[("holds", {"amount": 1, "expires_in_seconds": life}) for life in (0, -1, 2_592_001, "60")],
    ("holds", {"amount": 1}),
    ("holds/1/capture", {"amount": 0}),
    ("holds/1/capture", {"amount": 1, "final": 1}),
    ("holds/1/capture", {"amount": 1, "final": "no"}),
    ("holds/1/capture", {"amount": 1, "if_expired": "maybe"}),
    ("holds/1/renew", {}),
    ("holds/1/renew", {"expires_in_seconds": 0}),
    ("holds/1/release", {"amount": 1}),
    ("holds/0/release", {}),
    ("holds/-1/release", {}),
    ("holds/2147483648/release", {}),
    ("holds/x/release", {}),
]


@pytest.mark.parametrize(("path", "body"), WRONG, ids=lambda value: json.dumps(value)[:60])
async def test_a_wrong_body_is_refused_and_nothing_is_done(api: Api, path: str, body: Any) -> None:
    """422 VALIDATION_ERROR; integers are integers, and unknown fields are not ignored."""
    user, token = await make_user(), await make_api_key(*WRITER)
    answer = await post(api, token, user.user_id, path, body)
    assert (answer.status_code, error_type_of(answer)) == (422, "VALIDATION_ERROR")
    assert await entries_written() == 0


@pytest.mark.parametrize(
    "metadata",
    [
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": "\\ud800"}',
        '{"\\ud800": 1}',
        "[" * 33 + "]" * 33,
        '{"a": ' + "[" * 400 + "]" * 400 + "}",
        '{"a": ' + "[" * 100_000,
    ],
)
async def test_metadata_that_cannot_be_kept_is_refused(api: Api, metadata: str) -> None:
    """4xx in the one body, never a 500, whatever a JSON parser lets through."""
    user, token = await make_user(), await make_api_key(*WRITER)
    body = f'{{"amount": 1, "source": "promo", "metadata": {metadata}}}'
    headers = {**fresh_key(), "Content-Type": "application/json"}
    path = f"/user/{user.user_id}/credits/grant"
    answer = await api.call("POST", path, token, content=body, headers=headers)
    expected = {400: "BAD_REQUEST", 422: "VALIDATION_ERROR"}
    assert error_type_of(answer) == expected[answer.status_code]


async def test_metadata_comes_back_as_it_was_sent(api: Api) -> None:
    """Any JSON up to 32 levels deep."""
    user, token = await make_user(), await make_api_key(*WRITER)
    deepest: Any = []
    for _ in range(30):
        deepest = [deepest]
    notes = {"deck": {"slides": [1, 2.5, None, True, "ü𝄞"]}, "": {}, "deep": deepest}
    await done(api, token, user.user_id, "grant", {**GRANT, "metadata": notes})
    page = (await api.get(f"/user/{user.user_id}/credits/entries", token)).json()
    assert page["items"][0]["metadata"] == notes


async def test_the_same_request_many_times_at_once_is_done_once(start_api: StartApi) -> None:
    """Real commits: one effect, equal answers, and exactly one of them is no replay."""
    api = await start_api()
    user, token = await make_user(), await make_api_key(*WRITER)
    key = fresh_key()
    answers = await asyncio.gather(
        *(post(api, token, user.user_id, "grant", GRANT, key) for _ in range(20))
    )
    assert {answer.text for answer in answers} == {answers[0].text}
    assert [answer.headers.get("Idempotent-Replayed") for answer in answers].count(None) == 1
    assert await balance_of(user.user_id) == 100


async def test_spends_at_once_succeed_as_often_as_the_balance_allows(start_api: StartApi) -> None:
    """20 spends of 10 on 55: five succeed, fifteen are 402."""
    api = await start_api()
    user, token = await make_user(), await make_api_key(*WRITER)
    await done(api, token, user.user_id, "grant", {"amount": 55, "source": "promo"})
    answers = await asyncio.gather(
        *(post(api, token, user.user_id, "spend", {"amount": 10}) for _ in range(20))
    )
    statuses = [answer.status_code for answer in answers]
    assert (statuses.count(200), statuses.count(402)) == (5, 15)
    assert await balance_of(user.user_id) == 5
