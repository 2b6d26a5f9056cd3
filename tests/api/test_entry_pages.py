"""Pages of entries read together with others': the very bytes that a session's page has."""

import asyncio
import random
import uuid
from typing import Any

import httpx
import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from src.common.accounts.api_keys import Scope
from src.common.async_database import run_in_async_database_transaction
from src.common.credits.engine import readings
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.transaction import Transaction
from src.common.models.user import User
from src.common.purchases.operations import credit_transaction
from tests.api.credits import WRITER, done, post
from tests.api.tokens import make_token
from tests.fixtures.api import Api, StartApi, error_type_of, make_api_key, make_user

METADATA: tuple[dict[str, Any], ...] = (
    {},
    {"a": None, "b": [True, {"c": '\u2028 \x7f \b\f\n\r\t\x1f "\\/ é 😀'}]},
    {"number": 0.1, "whole": 1.0, "large": 1e16, "larger": 1e300, "small": -1e-7, "zero": -0.0},
    {"many digits": 10**30, "more": -(2**64)},
)
REFERENCES = ("order 1", 'é "quoted" \\ 😀 </script>', "\u2028\x7f\x1f\n")


async def both(api: Api, path: str, token: str, **options: Any) -> httpx.Response:
    """The one answer to a request, read together and by a session alone."""
    together = await api.get(path, token, **options)
    state = api.app.state
    kept, state.page_readings = state.page_readings, None
    alone = await api.get(path, token, **options)
    state.page_readings = kept
    assert said(together) == said(alone)
    return together


def said(answer: httpx.Response) -> tuple[Any, ...]:
    """What of an answer does not depend on the request."""
    headers = {k: v for k, v in answer.headers.items() if k != "x-request-id"}
    if answer.is_success:
        return answer.status_code, headers, answer.content
    detail = {k: v for k, v in answer.json()["detail"].items() if k != "request_id"}
    return answer.status_code, headers, detail


def bought(session: Session, user_id: uuid.UUID, *, with_order: bool) -> None:
    """A purchase that is credited, with or without an order of ours."""
    name = f"cs_test_{uuid.uuid4().hex}"
    if with_order:
        order = CheckoutOrder(
            user_id=user_id,
            idempotency_key=name,
            request_digest=b"d" * 32,
            package_id="500",
            credits=500,
            amount_cents=1_000,
            currency="eur",
            livemode=False,
            success_url="https://example.com/s",
            cancel_url="https://example.com/c",
            stripe_session_id=name,
        )
        session.add(order)
    purchase = Transaction(
        user_id=user_id,
        stripe_session_id=name,
        amount_paid_cents=1_000,
        credits_added=500,
        livemode=False,
    )
    session.add(purchase)
    session.flush()
    credit_transaction(session, purchase, actor="system:test")


async def live(api: Api, service: str, user_id: uuid.UUID, drawn: random.Random) -> None:
    """A random history: grants, spends over several lots, holds and their ends, purchases."""
    for _ in range(drawn.randrange(25)):
        with_order = drawn.random() < 0.5
        if drawn.random() < 0.15:
            await run_in_async_database_transaction(
                lambda session, w=with_order: bought(session, user_id, with_order=w)  # type: ignore[misc]
            )
        body: dict[str, Any] = {"amount": drawn.randint(1, 40)}
        if drawn.random() < 0.5:
            body["metadata"] = drawn.choice(METADATA)
        if drawn.random() < 0.5:
            body["reference"] = drawn.choice(REFERENCES)
        way = drawn.choice(["grant", "spend", "holds"])
        if way == "grant":
            body["source"] = "promo"
        elif way == "holds":
            body["expires_in_seconds"] = 3_600
        answer = await post(api, service, user_id, way, body)
        if way == "holds" and answer.is_success and drawn.random() < 0.7:
            end = drawn.choice(["capture", "release"])
            ends = {"amount": 1} if end == "capture" else {}
            await done(api, service, user_id, f"holds/{answer.json()['seq']}/{end}", ends)


@pytest.mark.parametrize("seed", range(3))
async def test_every_page_has_the_bytes_that_a_session_reads(
    start_api: StartApi, seed: int
) -> None:
    """Random histories, every page of each by random limits: the answers are the same to the byte.

    Among them odd numbers and characters in metadata, purchases with and without an order, and
    users with no entry at all.
    """
    api, drawn = await start_api(), random.Random(seed)  # noqa: S311  nothing secret
    service = await make_api_key(*WRITER)
    users = [await make_user() for _ in range(4)]
    for user in users[1:]:
        await live(api, service, user.user_id, drawn)
    for user in users:
        token, path = make_token(user.user_id), f"/user/{user.user_id}/credits/entries"
        cursor, seqs = None, list[int]()
        while True:
            limit = {"limit": str(drawn.choice([1, 2, 7, 200]))} if drawn.random() < 0.8 else {}
            params = limit | ({} if cursor is None else {"cursor": cursor})
            page = (await both(api, path, token, params=params)).json()
            seqs += [entry["seq"] for entry in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seqs == list(range(len(seqs), 0, -1))


async def test_nobody_can_tell_how_entries_were_read(start_api: StartApi) -> None:
    """Odd queries and callers, somebody else's entries, nobody's, and those of the deactivated."""
    api = await start_api()
    service = await make_api_key(*WRITER)
    user, other = await make_user(), await make_user()
    await done(api, service, user.user_id, "grant", {"amount": 5, "source": "promo"})
    token, path = make_token(user.user_id), f"/user/{user.user_id}/credits/entries"
    answers = {
        query: (await both(api, f"{path}?{query}", token)).status_code
        for query in (
            *("", "limit=10", "cursor=1", "cursor=2147483647&limit=10", "limit=2&cursor=2"),
            *("limit=0", "limit=201", "limit=+1", "limit=01", "limit=1_0", "limit=1&limit=2"),
            *("cursor=0", "cursor=2147483648", "cursor=x", "cursor=", "x=1", "limit=1&", "&"),
        )
    }
    assert {query for query, status in answers.items() if status == 422} == {
        *("limit=0", "limit=201", "cursor=0", "cursor=2147483648", "cursor=x", "cursor=", "x=1"),
    }
    assert set(answers.values()) == {200, 422}
    assert (await both(api, f"/user/{other.user_id}/credits/entries", token)).status_code == 403
    assert (await both(api, f"/user/{user.user_id}x/credits/entries", token)).status_code == 422
    assert (await both(api, path, service)).status_code == 200
    assert (await both(api, path, "garbage")).status_code == 401
    nobody = uuid.uuid4()
    answer = await both(api, f"/user/{nobody}/credits/entries", make_token(nobody))
    assert error_type_of(answer) == "USER_NOT_FOUND"
    await deactivate(user.user_id)
    for query in ("limit=10", "limit=0", "cursor=x"):
        answer = await both(api, f"{path}?{query}", token)
        assert (answer.status_code, error_type_of(answer)) == (403, "USER_INACTIVE")


async def test_pages_asked_for_at_once_are_everybodys_own(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each asks after its own grant, by several limits, and finds it; they share statements."""
    api = await start_api()
    service = await make_api_key(Scope.CREDITS_GRANT)
    users = [await make_user() for _ in range(8)]
    statements = 0
    found = readings.PageReadings.found

    async def counted(self: readings.PageReadings, *arguments: Any) -> Any:
        nonlocal statements
        statements += 1
        return await found(self, *arguments)

    monkeypatch.setattr(readings.PageReadings, "found", counted)

    async def ask(user_id: uuid.UUID) -> None:
        token, path = make_token(user_id), f"/user/{user_id}/credits/entries"
        for granted in range(1, 5):
            body = {"amount": granted, "source": "promo", "reference": str(user_id)}
            await done(api, service, user_id, "grant", body)
            pages = await asyncio.gather(
                *(api.get(path, token, params={"limit": str(limit)}) for limit in (1, 2, 9))
            )
            for limit, page in zip((1, 2, 9), pages, strict=True):
                items = page.json()["items"]
                expected = list(range(granted, 0, -1))[:limit]
                assert [entry["amount"] for entry in items] == expected
                assert {entry["reference"] for entry in items} == {str(user_id)}

    await asyncio.gather(*(ask(user.user_id) for user in users))
    assert 0 < statements < 8 * 4 * 3


async def test_a_page_that_cannot_be_read_together_is_read_alone(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is the same, and so is who may have it."""
    api = await start_api()
    service = await make_api_key(Scope.CREDITS_GRANT)
    user = await make_user()
    await done(api, service, user.user_id, "grant", {"amount": 5, "source": "promo"})
    token, path = make_token(user.user_id), f"/user/{user.user_id}/credits/entries"
    usual = await api.get(path, token)

    async def fail(*_arguments: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(readings.PageReadings, "found", fail)
    assert (await api.get(path, token)).content == usual.content
    await deactivate(user.user_id)
    assert error_type_of(await api.get(path, token)) == "USER_INACTIVE"


async def deactivate(user_id: uuid.UUID) -> None:
    """The user may not act any more."""
    await run_in_async_database_transaction(
        lambda session: session.execute(
            update(User).where(User.user_id == user_id).values(is_active=False)
        )
    )
