"""Where charging meets the rest: a full pool, a body nobody wanted, HEAD, headers of one client."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any

import pytest
import pytest_asyncio
from fastapi import Depends, Response
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession

from src.api.src import charging_middleware
from src.api.src.charging import charge
from src.common.async_database import run_in_async_database_transaction
from src.common.credits import ledger
from src.common.credits.domain.digest import digest_of
from src.common.credits.reservation import Reservation
from tests.api.tokens import make_token
from tests.fixtures.api import Api, balance_of, error_type_of, make_user

START, PRICE = 1_000, 10
Charged = Annotated[Reservation, Depends(charge(PRICE))]
KEY = {"Idempotency-Key": "job-1"}


class Shop:
    """An endpoint that charges a customer, however it is asked."""

    def __init__(self, api: Api, user_id: Any) -> None:
        self.api, self.user_id, self.runs = api, user_id, 0
        self.status, self.headers = 200, dict[str, str]()
        api.app.get("/api/v1/render")(self.render)
        api.app.post("/api/v1/render")(self.render)

    async def render(self, _reservation: Charged) -> Response:
        """The work."""
        self.runs += 1
        return Response(f"run {self.runs}", self.status, self.headers)

    async def call(self, method: str, path: str = "/render", **request: Any) -> Any:
        """Ask with the customer's token."""
        return await self.api.call(method, path, make_token(self.user_id), **request)

    async def paid(self) -> int:
        """What the customer was charged."""
        return START - await balance_of(self.user_id)


@pytest_asyncio.fixture
async def shop(api: Api, async_db: AsyncSession) -> AsyncGenerator[Shop]:
    """A customer with a thousand credits."""
    assert async_db
    user = await make_user()
    await run_in_async_database_transaction(
        lambda session: ledger.grant(session, user.user_id, START, key="start")
    )
    yield Shop(api, user.user_id)


async def test_a_pool_without_a_free_connection_at_the_capture_is_busy(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with `Retry-After` in place of the work, and the credits go back."""
    run, calls = run_in_async_database_transaction, [0]

    async def full_once(work: Any) -> Any:
        calls[0] += 1
        if calls[0] == 1:
            raise PoolTimeoutError("QueuePool limit reached")
        return await run(work)

    monkeypatch.setattr(charging_middleware, "run_in_async_database_transaction", full_once)
    answer = await shop.call("POST")
    assert (answer.status_code, error_type_of(answer)) == (503, "DATABASE_BUSY")
    assert answer.headers["Retry-After"] == "1"
    assert (shop.runs, await shop.paid()) == (1, 0)


async def test_a_body_that_nobody_wanted_spoils_no_answer(shop: Shop) -> None:
    """Larger than any may be, and sent without its length: the work is charged and answered."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 65_536

    answer = await shop.call("POST", content=pieces())
    assert (answer.status_code, answer.text) == (200, "run 1")
    assert await shop.paid() == PRICE


async def test_head_does_no_work(shop: Shop) -> None:
    """A crawler's HEAD is not charged; GET is."""
    refused = await shop.call("HEAD")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET")
    assert (shop.runs, await shop.paid()) == (0, 0)
    assert (await shop.call("GET")).status_code == 200
    assert await shop.paid() == PRICE


async def test_a_cookie_is_given_once(shop: Shop) -> None:
    """The session it opens may have ended when the request is sent again."""
    shop.headers = {"Set-Cookie": "session=secret", "X-Slides": "3"}
    first = await shop.call("POST", headers=KEY)
    again = await shop.call("POST", headers=KEY)
    assert first.headers["Set-Cookie"] == "session=secret"
    assert (again.text, again.headers["X-Slides"]) == (first.text, "3")
    assert "Set-Cookie" not in again.headers


@pytest.mark.parametrize("status", [206, 304])
async def test_what_answers_one_requests_headers_is_not_kept(shop: Shop, status: int) -> None:
    """A part, or `not modified`: sent again without those headers it would be wrong."""
    shop.status = status
    assert (await shop.call("POST", headers=KEY)).status_code == status
    again = await shop.call("POST", headers=KEY)
    assert (again.status_code, error_type_of(again)) == (409, "ALREADY_CHARGED")
    assert (shop.runs, await shop.paid()) == (1, PRICE)


async def test_what_clients_send_is_kept_in_no_cache(shop: Shop) -> None:
    """Queries may be long, and hold anything."""
    before = digest_of.cache_info().currsize
    for number in range(20):
        headers = {"Idempotency-Key": f"job-{number}"}
        await shop.call("POST", f"/render?secret={number}", headers=headers)
    # Of each: the hold, its capture.
    assert digest_of.cache_info().currsize - before <= 2 * shop.runs
