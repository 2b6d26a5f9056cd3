"""`Depends(charge(10))`: held before the work, kept for a success, given back for anything else."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
import pytest
import pytest_asyncio
from fastapi import Depends, FastAPI, Response
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from src.api.src import charging_middleware
from src.api.src.charging import charge
from src.common.async_database import run_in_async_database_transaction
from src.common.credits import ledger
from src.common.credits.reservation import Reservation
from src.common.models import User
from tests.api.charging_shop import losing_the_first_answer
from tests.api.tokens import make_token
from tests.fixtures.api import Api, balance_of, error_type_of, make_user

START = 25
PRICE = 10
Charged = Annotated[Reservation, Depends(charge(PRICE))]


class WorkFailedError(Exception):
    """What the endpoint's work raises."""


def add_charged_routes(app: FastAPI) -> None:
    """Endpoints of an application that charges for its work."""

    async def render(reservation: Charged, status: int = 200, used: int = PRICE) -> Response:
        reservation.used = used
        return Response("slides", status)

    async def crash(reservation: Charged) -> None:
        raise WorkFailedError(reservation.hold_seq)

    async def outlive(reservation: Charged) -> str:
        """Work during which somebody else closes the hold."""
        await run_in_async_database_transaction(reservation.release)
        return "slides"

    async def render_twice(
        first: Charged, second: Annotated[Reservation, Depends(charge(5))]
    ) -> int:
        return first.amount + second.amount

    app.post("/api/v1/render")(render)
    app.post("/api/v1/render-twice")(render_twice)
    app.post("/api/v1/crash")(crash)
    app.post("/api/v1/outlive")(outlive)


@dataclass(frozen=True)
class Customer:
    """A user with credits, and how they call an endpoint that charges."""

    api: Api
    user: User

    async def post(self, path: str, **request: Any) -> httpx.Response:
        """POST with the customer's token."""
        return await self.api.call("POST", path, make_token(self.user.user_id), **request)

    async def balance(self) -> int:
        """What is left."""
        return await balance_of(self.user.user_id)


@pytest_asyncio.fixture
async def customer(api: Api, async_db: AsyncSession) -> AsyncGenerator[Customer]:
    """A user with 25 credits, and an API whose endpoints cost 10."""
    assert async_db
    add_charged_routes(api.app)
    user = await make_user()
    await run_in_async_database_transaction(
        lambda session: ledger.grant(session, user.user_id, START, key="start")
    )
    yield Customer(api, user)


async def test_a_success_is_charged(customer: Customer) -> None:
    """A 2xx keeps the price."""
    assert (await customer.post("/render")).status_code == 200
    assert await customer.balance() == START - PRICE


async def test_an_endpoint_may_charge_less_than_it_held(customer: Customer) -> None:
    """Only what was used is kept."""
    await customer.post("/render?used=3")
    assert await customer.balance() == START - 3
    await customer.post("/render?used=0")
    assert await customer.balance() == START - 3


async def test_an_endpoint_cannot_charge_more_than_it_held(customer: Customer) -> None:
    """The programmer's error, and no client's: 500, and nothing is kept or stays held."""
    answer = await customer.post(f"/render?used={PRICE + 1}")
    assert (answer.status_code, error_type_of(answer)) == (500, "INTERNAL_ERROR")
    assert await customer.balance() == START


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_a_returned_error_is_free(customer: Customer, status: int) -> None:
    """A returned 4xx or 5xx gives the hold back, though nothing was raised."""
    assert (await customer.post(f"/render?status={status}")).status_code == status
    assert await customer.balance() == START


async def test_an_exception_is_free(customer: Customer) -> None:
    """Work that raises gives the hold back and answers 500."""
    assert (await customer.post("/crash")).status_code == 500
    assert await customer.balance() == START


async def test_too_few_credits_do_no_work(customer: Customer) -> None:
    """The third time is 402, before the endpoint runs."""
    answers = [await customer.post("/render") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 402]
    assert (
        answers[2].json()["detail"] | {"required": PRICE, "available": 5}
        == (answers[2].json()["detail"])
    )


async def test_the_same_key_is_charged_once(customer: Customer) -> None:
    """A repeated request with an Idempotency-Key costs nothing more."""
    for _ in range(3):
        answer = await customer.post("/render", headers={"Idempotency-Key": "job-1"})
        assert answer.status_code == 200
    assert await customer.balance() == START - PRICE


async def test_an_endpoint_with_two_prices_charges_both_and_once(customer: Customer) -> None:
    """Each is a charge of its own, and neither is charged again for the same key."""
    headers = {"Idempotency-Key": "job-1"}
    for _ in range(2):
        assert (await customer.post("/render-twice", headers=headers)).json() == PRICE + 5
        assert await customer.balance() == START - PRICE - 5


async def test_a_failed_request_may_be_tried_again_with_its_key(customer: Customer) -> None:
    """What was given back is held anew, and kept when the work succeeds."""
    headers = {"Idempotency-Key": "job-1"}
    assert (await customer.post("/render?status=500", headers=headers)).status_code == 500
    assert (await customer.post("/crash", headers=headers)).status_code == 500
    assert (await customer.post("/render?status=200", headers=headers)).status_code == 200
    assert await customer.balance() == START - PRICE


async def test_what_cannot_be_charged_is_not_given(customer: Customer) -> None:
    """If the capture fails, the caller gets 503 in place of the work, and nothing is taken."""
    answer = await customer.post("/outlive")
    assert (answer.status_code, error_type_of(answer)) == (503, "DATABASE_BUSY")
    assert answer.headers["Retry-After"] == "1"
    assert "slides" not in answer.text
    assert await customer.balance() == START


async def test_a_charge_whose_answer_was_lost_is_a_charge(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection ended at COMMIT: the work is given to whom it was charged to."""
    monkeypatch.setattr(
        charging_middleware, "run_in_async_database_transaction", losing_the_first_answer()
    )
    answer = await customer.post("/render")
    assert (answer.status_code, answer.text) == (200, "slides")
    assert await customer.balance() == START - PRICE


async def test_a_client_that_hung_up_is_not_charged(customer: Customer) -> None:
    """Gone before the first byte: the hold goes back."""
    token = make_token(customer.user.user_id)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/api/v1/render",
        "raw_path": b"/api/v1/render",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {token}".encode())],
        "scheme": "http",
        "server": ("api.test", 80),
    }
    messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> dict[str, Any]:
        return next(messages, {"type": "http.disconnect"})

    async def send(_message: Any) -> None:
        """Nobody is there to read it."""

    await customer.api.app(scope, receive, send)
    assert await customer.balance() == START


async def test_a_hold_that_expired_meanwhile_is_charged_from_what_is_there(
    customer: Customer,
) -> None:
    """Work that outlasts its hold is still paid for."""

    async def slow(reservation: Charged) -> str:
        def let_it_expire_soon(session: Session) -> None:
            ledger.renew(
                session,
                reservation.user_id,
                reservation.hold_seq,
                expires_in_seconds=1,
                key="soon",
            )

        await run_in_async_database_transaction(let_it_expire_soon)
        await asyncio.sleep(1.1)  # until then, by the database's own clock
        return "slides"

    customer.api.app.post("/api/v1/slow")(slow)
    for _ in range(2):  # and paid for once, however often it is asked for with its key
        answer = await customer.post("/slow", headers={"Idempotency-Key": "job-1"})
        assert answer.status_code == 200
        assert await customer.balance() == START - PRICE
