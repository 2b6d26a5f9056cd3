"""`GET /user/{user_id}/transactions`: pages that neither lose nor repeat a purchase."""

import base64
import datetime as dt
import uuid
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from src.common.models.user import User
from tests.api.tokens import make_token
from tests.fixtures.api import Api, error_type_of, make_user
from tests.models.examples import a_transaction

NOON = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)


async def add_purchases(session: AsyncSession, user: User, *instants: dt.datetime) -> set[str]:
    """Commit a purchase at each instant; their ids."""
    rows = [a_transaction(user_id=user.user_id, created_at=instant) for instant in instants]
    session.add_all(rows)
    await session.commit()
    return {str(row.transaction_id) for row in rows}


async def read_page(api: Api, user: User, cursor: str | None, limit: int = 3) -> dict[str, Any]:
    """One page of the user's purchases."""
    params = {"limit": str(limit)} | ({"cursor": cursor} if cursor else {})
    url = f"/user/{user.user_id}/transactions"
    answer = await api.get(url, make_token(user.user_id), params=params)
    assert answer.status_code == 200
    page: dict[str, Any] = answer.json()
    return page


async def test_no_purchase_is_an_empty_page(api: Api) -> None:
    """A user without purchases gets an empty list and no cursor."""
    assert await read_page(api, await make_user(), None) == {"items": [], "next_cursor": None}


async def test_a_purchase_is_shown_whole(api: Api, async_db: AsyncSession) -> None:
    """Amounts in cents, currency, credits, Stripe's ids."""
    user = await make_user()
    async_db.add(
        a_transaction(
            user_id=user.user_id, stripe_session_id="cs_1", payment_intent_id="pi_1", livemode=False
        )
    )
    await async_db.commit()
    (item,) = (await read_page(api, user, None))["items"]
    assert (item["stripe_session_id"], item["payment_intent_id"]) == ("cs_1", "pi_1")
    assert (item["amount_paid_cents"], item["currency"], item["credits_added"]) == (500, "usd", 500)
    assert (item["refunded_cents"], item["disputed_cents"], item["livemode"]) == (0, 0, False)
    stands = {name: item[name] for name in ("state", "package_id", "credits_left")}
    assert stands == {"state": "uncredited", "package_id": None, "credits_left": None}


async def test_every_purchase_appears_once_while_new_ones_arrive(
    api: Api, async_db: AsyncSession
) -> None:
    """Paging through, with newer purchases between the pages, gives each old one exactly once."""
    user, other = await make_user(), await make_user()
    await add_purchases(async_db, other, NOON)
    expected = await add_purchases(
        async_db, user, *(NOON + dt.timedelta(microseconds=number) for number in range(8))
    )
    seen: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = await read_page(api, user, cursor)
        seen += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        await add_purchases(async_db, user, NOON + dt.timedelta(days=len(seen)))
    assert sorted(item["transaction_id"] for item in seen) == sorted(expected)
    instants = [dt.datetime.fromisoformat(item["created_at"]) for item in seen]
    assert instants == sorted(instants, reverse=True)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
async def test_equal_instants_are_neither_lost_nor_repeated(
    api: Api, async_db: AsyncSession, limit: int
) -> None:
    """Seven purchases of one instant: the id decides their order across pages."""
    user = await make_user()
    expected = await add_purchases(async_db, user, *[NOON] * 7)
    seen: list[str] = []
    cursor, more = None, True
    while more:
        page = await read_page(api, user, cursor, limit)
        assert 0 < len(page["items"]) <= limit
        seen += [item["transaction_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        more = cursor is not None
    assert sorted(seen) == sorted(expected)


async def test_a_cursor_opens_nobody_elses_purchases(api: Api, async_db: AsyncSession) -> None:
    """Another user's cursor is a place in time only: the rows stay one's own."""
    user, other = await make_user(), await make_user()
    mine = await add_purchases(async_db, user, NOON)
    await add_purchases(async_db, other, *[NOON + dt.timedelta(days=1)] * 4)
    cursor = (await read_page(api, other, None))["next_cursor"]
    page = await read_page(api, user, cursor)
    assert {item["transaction_id"] for item in page["items"]} == mine


def written(text: str) -> str:
    """A cursor that says `text`."""
    return base64.urlsafe_b64encode(text.encode()).decode()


GARBAGE = {
    "no base64": "!!!",
    "not ASCII": "ü",
    "NUL": "\x00",
    "padding only": "====",
    "not UTF-8": base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    "no id": written("2026-11-22T12:00:00+00:00"),
    "no instant": written(f"|{uuid.UUID(int=1)}"),
    "three parts": written(f"2026-11-22T12:00:00+00:00|{uuid.UUID(int=1)}|x"),
    "an instant out of range": written(f"0001-01-01T00:00:00+23:59|{uuid.UUID(int=1)}"),
    "an instant without a zone": written(f"2026-11-22T12:00:00|{uuid.UUID(int=1)}"),
    "an id that is none": written("2026-11-22T12:00:00+00:00|7"),
    "too long": "A" * 201,
}


@pytest.mark.parametrize("cursor", GARBAGE.values(), ids=GARBAGE.keys())
async def test_a_garbage_cursor_is_refused(api: Api, cursor: str) -> None:
    """Whatever is no cursor of ours is 422, never a 500 and never the first page."""
    user = await make_user()
    answer = await api.get(
        f"/user/{user.user_id}/transactions", make_token(user.user_id), params={"cursor": cursor}
    )
    assert (answer.status_code, error_type_of(answer)) == (422, "VALIDATION_ERROR")


@pytest.mark.parametrize("limit", ["0", "-1", "201", "ten", "1e1", "9" * 30, ""])
async def test_a_limit_out_of_range_is_refused(api: Api, limit: str) -> None:
    """A page has 1 to 200 rows."""
    user = await make_user()
    answer = await api.get(
        f"/user/{user.user_id}/transactions", make_token(user.user_id), params={"limit": limit}
    )
    assert (answer.status_code, error_type_of(answer)) == (422, "VALIDATION_ERROR")
