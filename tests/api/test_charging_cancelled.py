"""Requests that cost credits, cancelled at every moment: charged for work done, or given back."""

import asyncio
from collections import Counter
from functools import partial
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI

from src.api.src.charging import charge
from src.common.async_database import run_in_async_database_transaction
from src.common.credits import ledger
from src.common.credits.reservation import Reservation, ReservationState
from tests.api.tokens import make_token
from tests.credits.committed import balances, open_holds
from tests.credits.engine.cancelling import Cancel, cancelled_after
from tests.fixtures.api import StartApi, make_user

START = 100_000
PRICE = 10
USED = 4


class Requests:
    """The same request again and again, and what became of it."""

    def __init__(self, app: FastAPI, token: str) -> None:
        self._app = app
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/api/v1/render",
            "raw_path": b"/api/v1/render",
            "query_string": b"",
            "headers": [],
            "scheme": "http",
            "server": ("api.test", 80),
        }
        self._token = token
        self._held: Reservation | None = None
        self._is_done = False
        self.statuses: list[int] = []
        self.runs = 0
        self.found: Counter[str] = Counter()
        app.post("/api/v1/render")(self.render)

    async def render(self, reservation: Annotated[Reservation, Depends(charge(PRICE))]) -> str:
        """The endpoint: done in a few steps."""
        self._held = reservation
        self.runs += 1
        for _ in range(5):
            await asyncio.sleep(0)
        reservation.used = USED
        self._is_done = True
        return "slides"

    async def request(self, key: str | None = None) -> None:
        """One request."""
        self._held, self._is_done, self.statuses = None, False, []
        headers = [(b"authorization", f"Bearer {self._token}".encode())]
        if key is not None:
            headers.append((b"idempotency-key", key.encode()))
        await self._app({**self._scope, "headers": headers}, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        if self._is_done:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.statuses.append(message["status"])

    def note(self) -> None:
        """A charge is of work that was done; who is told of success was charged."""
        state = "not begun" if self._held is None else str(self._held.state)
        self.found[state] += 1
        assert self._is_done or state != ReservationState.CAPTURED
        assert self.statuses in ([], [200])
        assert not self.statuses or state == ReservationState.CAPTURED


@pytest.mark.parametrize("has_key", [False, True])
@pytest.mark.parametrize("cancel", Cancel)
async def test_a_request_cancelled_at_any_moment_is_charged_or_free(
    start_api: StartApi, cancel: Cancel, *, has_key: bool
) -> None:
    """No hold stays open, and every charge is of work that was done.

    Sent again with its key, what was not charged is done, and what was charged is answered.
    """
    api = await start_api()
    user_id = (await make_user()).user_id
    await run_in_async_database_transaction(
        lambda session: ledger.grant(session, user_id, START, key="start")
    )
    requests = Requests(api.app, make_token(user_id))
    steps = 1
    while await cancelled_after(
        steps, cancel, partial(requests.request, f"job-{steps}" if has_key else None)
    ):
        requests.note()
        steps += 1
    requests.note()
    assert {*requests.found} == {"not begun", "released", "captured"}
    assert open_holds(user_id) == 0
    assert balances([user_id]) == [START - USED * requests.found["captured"]]
    assert requests.found["captured"] > 1
    if has_key:
        done_before = requests.runs
        for number in range(1, steps + 1):
            await requests.request(f"job-{number}")
            assert requests.statuses == [200]
        assert requests.runs - done_before == steps - requests.found["captured"]
        assert balances([user_id]) == [START - USED * steps]
