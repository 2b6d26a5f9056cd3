"""Reading credits over HTTP: the balance to the instant, its ETag, journal, holds, explanation."""

import datetime as dt
import uuid
from typing import Any

import pytest
from dirty_equals import IsDatetime
from sqlalchemy.orm import Session

from src.common.accounts.api_keys import Scope
from src.common.async_database import run_in_async_database_transaction
from src.common.credits.domain.commands import Command, Grant, OpenHold
from src.common.credits.operations import execute
from tests.api.credits import done
from tests.api.tokens import make_token
from tests.credits.ledger import ask
from tests.fixtures.api import Api, error_type_of, make_api_key, make_user

LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
READS = ["", "/entries", "/holds", "/holds/1", "/explain"]


async def long_ago(seconds: int, kind: type[Command], user_id: uuid.UUID, **arguments: Any) -> None:
    """Have it done years ago, so that what it set has long expired."""
    command = ask(kind, user_id, **arguments)

    def work(session: Session) -> None:
        execute(session, [command], now=LONG_AGO + dt.timedelta(seconds=seconds))

    await run_in_async_database_transaction(work)


async def test_a_user_reads_what_they_have(api: Api) -> None:
    """Balance, held, debt, lots in the order spent, next expiry, version; nothing else."""
    user, service = await make_user(), await make_api_key(Scope.CREDITS_GRANT, Scope.CREDITS_SPEND)
    expiry = "2099-01-01T00:00:00Z"
    late = {"amount": 50, "source": "subscription", "priority": 100}
    await done(api, service, user.user_id, "grant", late)
    await done(
        api, service, user.user_id, "grant", {"amount": 10, "source": "promo", "expires_at": expiry}
    )
    await done(api, service, user.user_id, "holds", {"amount": 4, "expires_in_seconds": 60})
    answer = await api.get(f"/user/{user.user_id}/credits", make_token(user.user_id))
    assert answer.status_code == 200
    lot = {"transaction_id": None}
    assert answer.json() == {
        "balance": 56,
        "held": 4,
        "debt": 0,
        "lots": [
            {"seq": 2, "source": "promo", "priority": 10, "granted": 10, "remaining": 6,
             "expires_at": expiry, **lot},
            {"seq": 1, "source": "subscription", "priority": 100, "granted": 50, "remaining": 50,
             "expires_at": None, **lot},
        ],
        "next_expiry": expiry,
        "version": 3,
    }  # fmt: skip


async def test_what_has_expired_does_not_count_although_nobody_booked_it(api: Api) -> None:
    """Lots and holds past their expiry count as expired in every reading."""
    user, token = await make_user(), await make_api_key(Scope.CREDITS_READ)
    lasting = LONG_AGO + dt.timedelta(seconds=60)
    await long_ago(0, Grant, user.user_id, amount=30, expires_at=lasting)
    await long_ago(1, Grant, user.user_id, amount=5, priority=100)
    await long_ago(2, OpenHold, user.user_id, amount=10, expires_in_seconds=5)
    path = f"/user/{user.user_id}/credits"
    balance = (await api.get(path, token)).json()
    assert (balance["balance"], balance["held"], balance["version"]) == (5, 0, 3)
    assert (await api.get(f"{path}/holds/3", token)).json()["status"] == "expired"
    explained = (await api.get(f"{path}/explain", token)).json()
    assert (explained["booked_balance"], explained["now"]["balance"]) == (25, 5)
    assert [(due["kind"], due["amount"]) for due in explained["due"]] == [
        ("hold_expiry", 10),
        ("lot_expiry", -30),
    ]
    then = (await api.get(f"{path}?as_of=2020-01-01T00:00:03Z", token)).json()
    assert (then["balance"], then["held"], then["debt"]) == (25, 10, None)
    assert then["next_expiry"] == "2020-01-01T00:01:00Z"


@pytest.mark.parametrize(
    "as_of", ["2099-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00", "2020-01-01T00:00:00", "noon"]
)
async def test_only_a_past_instant_with_a_time_zone_can_be_asked_for(api: Api, as_of: str) -> None:
    """422 VALIDATION_ERROR."""
    user = await make_user()
    path = f"/user/{user.user_id}/credits"
    answer = await api.get(path, make_token(user.user_id), params={"as_of": as_of})
    assert (answer.status_code, error_type_of(answer)) == (422, "VALIDATION_ERROR")


async def test_the_earliest_instant_there_is_can_be_asked_for(api: Api) -> None:
    """Nobody had anything then."""
    user = await make_user()
    path = f"/user/{user.user_id}/credits?as_of=0001-01-01T00:00:00%2B14:00"
    answer = await api.get(path, make_token(user.user_id))
    assert (answer.status_code, answer.json()["balance"]) == (200, 0)


async def test_an_unchanged_balance_is_not_sent_again(api: Api) -> None:
    """304 without a body for the ETag, weak, in a list or as `*`; 200 once something changed."""
    user, service = await make_user(), await make_api_key(Scope.CREDITS_GRANT)
    path, token = f"/user/{user.user_id}/credits", make_token(user.user_id)
    first = await api.get(path, token)
    etag = first.headers["ETag"]
    assert first.headers["Cache-Control"] == "private, no-cache"
    for given in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = await api.get(path, token, headers={"If-None-Match": given})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)
    for given in ('"other"', etag.strip('"'), ""):
        answer = await api.get(path, token, headers={"If-None-Match": given})
        assert (answer.status_code, answer.json()) == (200, first.json())
    await done(api, service, user.user_id, "grant", {"amount": 1, "source": "promo"})
    changed = await api.get(path, token, headers={"If-None-Match": etag})
    assert (changed.status_code, changed.json()["balance"]) == (200, 1)
    assert changed.headers["ETag"] != etag


async def test_the_etag_changes_when_credits_expire(api: Api) -> None:
    """It is of the answered body: a balance changes with time, without an entry."""
    user = await make_user()
    path, token = f"/user/{user.user_id}/credits", make_token(user.user_id)
    lasting = LONG_AGO + dt.timedelta(seconds=60)
    await long_ago(0, Grant, user.user_id, amount=30, expires_at=lasting)
    before = await api.get(f"{path}?as_of=2020-01-01T00:00:59Z", token)
    after = await api.get(f"{path}?as_of=2020-01-01T00:01:00Z", token)
    assert (before.json()["version"], before.json()["balance"]) == (1, 30)
    assert (after.json()["version"], after.json()["balance"]) == (1, 0)
    assert before.headers["ETag"] != after.headers["ETag"]


async def test_the_journal_is_paged_newest_first(api: Api) -> None:
    """Following `next_cursor` shows every entry once, with lines and metadata."""
    user, service = await make_user(), await make_api_key(Scope.CREDITS_GRANT)
    for amount in range(1, 6):
        body = {"amount": amount, "source": "promo", "reference": f"gift {amount}"}
        await done(api, service, user.user_id, "grant", {**body, "metadata": {"n": amount}})
    path, token = f"/user/{user.user_id}/credits/entries", make_token(user.user_id)
    items: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    for expected in (2, 2, 1):
        page = (await api.get(path, token, params={"limit": 2, **cursor})).json()
        assert len(page["items"]) == expected
        items += page["items"]
        cursor = {"cursor": page["next_cursor"]}
    assert cursor == {"cursor": None}
    assert [item["seq"] for item in items] == [5, 4, 3, 2, 1]
    assert items[0] == {
        "seq": 5,
        "kind": "grant",
        "amount": 5,
        "balance_after": 15,
        "captured": None,
        "related_seq": None,
        "idempotency_key": items[0]["idempotency_key"],
        "reference": "gift 5",
        "actor": "key:slides",
        "effective_at": IsDatetime(iso_string=True),
        "created_at": IsDatetime(iso_string=True),
        "postings": [{"lot_seq": 5, "amount": 5, "remaining_after": 5}],
        "metadata": {"n": 5},
        "purchase": None,
    }


async def test_holds_are_listed_and_shown_with_the_entry_that_opened_them(api: Api) -> None:
    """One hold reads the same alone and in the list."""
    user = await make_user()
    service = await make_api_key(Scope.CREDITS_GRANT, Scope.CREDITS_SPEND)
    await done(api, service, user.user_id, "grant", {"amount": 50, "source": "promo"})
    body = {"amount": 9, "expires_in_seconds": 60, "reference": "deck 1"}
    opened = await done(api, service, user.user_id, "holds", body)
    await done(api, service, user.user_id, "holds/2/capture", {"amount": 4, "final": False})
    path, token = f"/user/{user.user_id}/credits/holds", make_token(user.user_id)
    page = (await api.get(path, token)).json()
    hold = (await api.get(f"{path}/2", token)).json()
    assert page == {"items": [hold], "next_cursor": None}
    assert (await api.get(path, token, params={"status": "open"})).json() == page
    assert (await api.get(path, token, params={"status": "released"})).json()["items"] == []
    assert (await api.get(path, token, params={"status": "lost"})).status_code == 422
    assert hold["entry"]["reference"] == "deck 1"
    del hold["entry"]
    assert hold == {
        "seq": 2,
        "amount": 9,
        "captured": 4,
        "status": "open",
        "expires_at": opened["expires_at"],
    }


async def test_a_hold_that_is_none_is_not_found(api: Api) -> None:
    """404 HOLD_NOT_FOUND; a number that no entry can have is 422."""
    user = await make_user()
    path, token = f"/user/{user.user_id}/credits/holds", make_token(user.user_id)
    answer = await api.get(f"{path}/7", token)
    assert (answer.status_code, error_type_of(answer)) == (404, "HOLD_NOT_FOUND")
    for seq in ("0", "2147483648", "x"):
        answer = await api.get(f"{path}/{seq}", token)
        assert (answer.status_code, error_type_of(answer)) == (422, "VALIDATION_ERROR")


async def test_an_explanation_shows_lots_holds_and_sums(api: Api) -> None:
    """What support needs to answer why a balance is what it is."""
    user = await make_user()
    service = await make_api_key(Scope.CREDITS_GRANT, Scope.CREDITS_SPEND)
    body = {"amount": 50, "source": "promo", "reference": "welcome"}
    await done(api, service, user.user_id, "grant", body)
    await done(api, service, user.user_id, "spend", {"amount": 5})
    await done(api, service, user.user_id, "holds", {"amount": 9, "expires_in_seconds": 60})
    answer = await api.get(f"/user/{user.user_id}/credits/explain", make_token(user.user_id))
    found = answer.json()
    assert found["total_by_kind"] == {"grant": 50, "spend": -5, "hold": -9}
    assert (found["agrees"], found["booked_balance"], found["now"]["balance"]) == (True, 36, 36)
    [lot], [hold] = found["lots"], found["holds"]
    assert (lot["remaining"], lot["entry"]["reference"]) == (36, "welcome")
    assert (hold["seq"], hold["amount"], hold["entry"]["kind"]) == (3, 9, "hold")
    assert (found["due"], found["debts"]) == ([], [])


@pytest.mark.parametrize("path", READS)
async def test_only_ones_own_credits_are_read_without_a_scope(api: Api, path: str) -> None:
    """Another user's answer the same 403 whether or not they exist; `credits:read` opens them."""
    user, other = await make_user(), await make_user()
    token = make_token(user.user_id)
    for user_id in (other.user_id, uuid.uuid4()):
        answer = await api.get(f"/user/{user_id}/credits{path}", token)
        assert (answer.status_code, error_type_of(answer)) == (403, "FORBIDDEN")
    others = await make_api_key(*(set(Scope) - {Scope.CREDITS_READ}))
    answer = await api.get(f"/user/{user.user_id}/credits{path}", others)
    assert (answer.status_code, error_type_of(answer)) == (403, "FORBIDDEN")
    reader = await make_api_key(Scope.CREDITS_READ)
    for allowed in (token, reader):
        answer = await api.get(f"/user/{user.user_id}/credits{path}", allowed)
        assert answer.status_code == (404 if path == "/holds/1" else 200)
    unknown = await api.get(f"/user/{uuid.uuid4()}/credits{path}", reader)
    assert (unknown.status_code, error_type_of(unknown)) == (404, "USER_NOT_FOUND")


@pytest.mark.parametrize("path", ["/entries", "/holds"])
@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "cursor=x", "cursor=", "cursor=-1"]
)
async def test_a_page_that_is_none_is_refused(api: Api, path: str, query: str) -> None:
    """422 VALIDATION_ERROR for limits and cursors."""
    user = await make_user()
    answer = await api.get(f"/user/{user.user_id}/credits{path}?{query}", make_token(user.user_id))
    assert (answer.status_code, error_type_of(answer)) == (422, "VALIDATION_ERROR")
