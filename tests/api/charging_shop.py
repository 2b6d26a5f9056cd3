"""An application whose endpoints charge a customer and count how often they ran."""

import hashlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx
from fastapi import Body, Depends, FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from src.api.src.charging import charge
from src.common.async_database import run_in_async_database_transaction
from src.common.credits.reservation import Reservation
from src.common.models import ChargedRequest, User
from src.common.postgres.errors import CONNECTION_LOST, RetryableDatabaseError
from tests.api.tokens import make_token
from tests.fixtures.api import Api, balance_of, fetch

START = 1_000
PRICE = 10
KEY = {"Idempotency-Key": "job-1"}
Charged = Annotated[Reservation, Depends(charge(PRICE))]


@dataclass
class Shop:
    """A customer, and an application whose endpoints charge them and count how often they ran."""

    api: Api
    user: User
    runs: list[Any] = field(default_factory=list[Any])

    async def post(self, path: str = "/render", **request: Any) -> httpx.Response:
        """POST with the customer's token, and a key unless another is given."""
        headers = {**KEY, **request.pop("headers", {})}
        token = make_token(self.user.user_id)
        return await self.api.call("POST", path, token, headers=headers, **request)

    async def paid(self) -> int:
        """What the customer was charged."""
        return START - await balance_of(self.user.user_id)

    def add(self, app: FastAPI) -> None:
        """The endpoints."""
        app.post("/api/v1/render", status_code=201)(self.render)
        app.put("/api/v1/render")(self.render)
        app.post("/api/v1/other")(self.render)
        app.post("/api/v1/upload")(self.upload)
        app.post("/api/v1/stream")(self.stream)
        app.post("/api/v1/nothing", status_code=204)(self.nothing)

    async def render(
        self, reservation: Charged, response: Response, deck: Annotated[Any, Body()] = None
    ) -> dict[str, Any]:
        """Slides, different ones each time."""
        self.runs.append(deck)
        response.headers["X-Slides"] = f"run {len(self.runs)}"
        return {"run": len(self.runs), "deck": deck, "hold": reservation.hold_seq}

    async def upload(self, request: Request, reservation: Charged) -> Response:
        """What reads its body itself, piece by piece, after the charge."""
        pieces = [piece async for piece in request.stream()]
        self.runs.append(pieces)
        reservation.used = int(request.query_params.get("used", PRICE))
        status = int(request.query_params.get("status", 200))
        return Response(hashlib.sha256(b"".join(pieces)).hexdigest(), status)

    async def stream(self, _reservation: Charged) -> StreamingResponse:
        """An answer of which nobody knows how long it will be."""

        async def pieces() -> AsyncIterator[str]:
            self.runs.append("stream")
            yield "a slide"
            yield "another"

        return StreamingResponse(pieces())

    async def nothing(self, _reservation: Charged) -> None:
        """Work that answers nothing."""
        self.runs.append("nothing")


def losing_the_first_answer() -> Callable[[Callable[[Session], Any]], Awaitable[Any]]:
    """As `run_in_async_database_transaction`, on a connection that ends at the first COMMIT."""
    times = itertools.count(1)

    async def run(work: Callable[[Session], Any]) -> Any:
        result = await run_in_async_database_transaction(work)
        if next(times) == 1:
            raise RetryableDatabaseError(None, None, CONNECTION_LOST)
        return result

    return run


async def kept_answers() -> int:
    """How many answers are stored."""
    return await fetch(
        select(func.count()).select_from(ChargedRequest).where(ChargedRequest.status.is_not(None))
    )
