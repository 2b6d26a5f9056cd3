"""A charged request with an `Idempotency-Key`: done once, then answered the same or refused."""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx
import pytest
import pytest_asyncio
from fastapi import Body, Depends, FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from src.api.src import charging
from src.api.src.charging import charge
from src.cli import work
from src.common.accounts.operations import erase_user
from src.common.async_database import run_in_async_database_transaction
from src.common.credits import charged_requests, ledger
from src.common.credits.reservation import Reservation
from src.common.database import SessionLocal
from src.common.database_errors import CONNECTION_LOST
from src.common.exceptions import RetryableDatabaseError
from src.common.models import ChargedRequest, User
from tests.api.tokens import make_token
from tests.fixtures.api import Api, balance_of, error_type_of, fetch, make_user

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


@pytest_asyncio.fixture
async def shop(api: Api, async_db: AsyncSession) -> AsyncGenerator[Shop]:
    """A customer with a thousand credits."""
    assert async_db
    user = await make_user()
    await run_in_async_database_transaction(
        lambda session: ledger.grant(session, user.user_id, START, key="start")
    )
    shop = Shop(api, user)
    shop.add(api.app)
    yield shop


async def kept_answers() -> int:
    """How many answers are stored."""
    return await fetch(
        select(func.count()).select_from(ChargedRequest).where(ChargedRequest.status.is_not(None))
    )


async def test_the_same_request_again_gets_the_answer_of_the_first(shop: Shop) -> None:
    """Status, headers and body, marked as a replay; the work is done and charged once."""
    first = await shop.post(json={"deck": 1})
    assert first.status_code == 201
    assert "Idempotent-Replayed" not in first.headers
    for _ in range(3):
        again = await shop.post(json={"deck": 1})
        assert (again.status_code, again.text) == (201, first.text)
        assert again.headers["Idempotent-Replayed"] == "true"
        of_each_request = {"x-request-id", "idempotent-replayed"}
        headers = [each for each in again.headers.multi_items() if each[0] not in of_each_request]
        assert headers == [
            each for each in first.headers.multi_items() if each[0] not in of_each_request
        ]
        assert again.headers["X-Request-ID"] != first.headers["X-Request-ID"]
    assert shop.runs == [{"deck": 1}]
    assert await shop.paid() == PRICE


async def test_twenty_requests_with_one_key_and_twenty_bodies_are_one_piece_of_work(
    shop: Shop,
) -> None:
    """The others are refused before the endpoint runs, and cost nothing."""
    answers = [await shop.post(json={"deck": number}) for number in range(20)]
    assert [answer.status_code for answer in answers] == [201] + 19 * [409]
    assert {error_type_of(answer) for answer in answers[1:]} == {"IDEMPOTENCY_KEY_REUSED"}
    assert shop.runs == [{"deck": 0}]
    assert await shop.paid() == PRICE


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/render?size=2"), ("POST", "/other"), ("PUT", "/render")]
)
async def test_another_query_path_or_method_is_another_request(
    shop: Shop, method: str, path: str
) -> None:
    """The key is the user's for one request, wherever it goes."""
    await shop.post(json={"deck": 1})
    token = make_token(shop.user.user_id)
    answer = await shop.api.call(method, path, token, headers=KEY, json={"deck": 1})
    assert (answer.status_code, error_type_of(answer)) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert len(shop.runs) == 1


async def test_each_key_has_an_answer_of_its_own(shop: Shop) -> None:
    """Two requests that are the same but for their keys are two pieces of work."""
    keys = [{"Idempotency-Key": f"job-{number}"} for number in range(3)]
    first = [(await shop.post(json={"deck": 1}, headers=key)).text for key in keys]
    again = [(await shop.post(json={"deck": 1}, headers=key)).text for key in keys]
    assert again == first
    assert len(set(first)) == len(shop.runs) == 3
    assert await shop.paid() == 3 * PRICE


async def test_a_key_is_one_users(shop: Shop) -> None:
    """Somebody else's request with the same key is their own."""
    await shop.post(json={"deck": 1})
    other = await make_user()
    await run_in_async_database_transaction(
        lambda session: ledger.grant(session, other.user_id, START, key="start")
    )
    answer = await Shop(shop.api, other).post(json={"deck": 2})
    assert (answer.status_code, answer.json()["run"]) == (201, 2)


async def test_a_body_is_read_for_the_digest_and_still_read_by_the_endpoint(shop: Shop) -> None:
    """Whatever the pieces it comes in; a body that differs in its last byte is another."""

    async def pieces(size: int, end: bytes = b"!") -> AsyncIterator[bytes]:
        body = b"slides" * 50_000 + end
        for begin in range(0, len(body), size):
            yield body[begin : begin + size]

    first = await shop.post("/upload", content=pieces(65_536))
    again = await shop.post("/upload", content=pieces(1_000))
    other = await shop.post("/upload", content=pieces(65_536, b"?"))
    assert first.text == hashlib.sha256(b"slides" * 50_000 + b"!").hexdigest()
    assert (again.text, again.headers["Idempotent-Replayed"]) == (first.text, "true")
    assert error_type_of(other) == "IDEMPOTENCY_KEY_REUSED"
    assert len(shop.runs) == 1


async def test_a_body_too_large_is_refused_before_anything_is_charged(shop: Shop) -> None:
    """413, however it is sent; the endpoint does not run and the key is free."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 65_536

    answer = await shop.post("/upload", content=pieces())
    assert (answer.status_code, error_type_of(answer)) == (413, "PAYLOAD_TOO_LARGE")
    assert shop.runs == []
    assert await shop.paid() == 0
    assert (await shop.post("/upload", content=b"x")).status_code == 200


async def refuse_again(shop: Shop, path: str = "/render", **request: Any) -> None:
    """The request, made before, is refused as charged; another with its key as another."""
    answer = await shop.post(path, **request)
    assert (answer.status_code, error_type_of(answer)) == (409, "ALREADY_CHARGED")
    answer = await shop.post(path, json={"deck": "another"})
    assert error_type_of(answer) == "IDEMPOTENCY_KEY_REUSED"
    assert len(shop.runs) == 1
    assert await shop.paid() == PRICE


@pytest.mark.parametrize("update", [{"charge_replay_seconds": 0}, {"charge_replay_max_bytes": 100}])
async def test_an_answer_that_is_not_kept_is_not_given_again(
    shop: Shop, update: dict[str, int]
) -> None:
    """Where the settings say so, and where it is too large."""
    state = shop.api.app.state
    state.settings = state.settings.model_copy(update=update)
    deck = {"deck": "x" * 100}
    assert (await shop.post(json=deck)).status_code == 201
    await refuse_again(shop, json=deck)
    assert await kept_answers() == 0


async def test_a_streamed_answer_is_charged_and_not_kept(shop: Shop) -> None:
    """It begins before anybody knows its end."""
    assert (await shop.post("/stream")).text == "a slideanother"
    await refuse_again(shop, "/stream")


async def test_a_streamed_answer_is_not_held_back(shop: Shop) -> None:
    """Each piece is sent as it is made, the first after the charge."""
    happened: list[str] = []

    async def endless(_reservation: Charged) -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            for number in range(2):
                happened.append(f"made {number}, paid {await shop.paid()}")
                yield str(number)

        return StreamingResponse(pieces())

    shop.api.app.post("/api/v1/endless")(endless)
    token = make_token(shop.user.user_id)
    headers = [(b"authorization", f"Bearer {token}".encode()), (b"idempotency-key", b"job-1")]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/api/v1/endless",
        "query_string": b"",
        "headers": headers,
        "scheme": "http",
        "server": ("api.test", 80),
    }
    messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> dict[str, Any]:
        found = next(messages, None)
        if found is None:
            await asyncio.Event().wait()
        return found or {}

    async def send(message: Any) -> None:
        happened.append(f"sent {message.get('status', message.get('body'))}")

    await shop.api.app(scope, receive, send)
    assert happened == [
        "sent 200",
        f"made 0, paid {PRICE}",
        "sent b'0'",
        f"made 1, paid {PRICE}",
        "sent b'1'",
        "sent b''",
    ]


async def test_an_answer_without_a_body_is_kept(shop: Shop) -> None:
    """204 is an answer like any other."""
    for _ in range(2):
        assert (await shop.post("/nothing")).status_code == 204
    assert shop.runs == ["nothing"]
    assert await shop.paid() == PRICE


async def let_answers_expire() -> None:
    """As if `CHARGE_REPLAY_SECONDS` had gone by."""
    await run_in_async_database_transaction(
        lambda session: session.execute(update(ChargedRequest).values(expires_at=func.now()))
    )


async def test_a_charged_request_is_known_for_ever(shop: Shop) -> None:
    """When its answer's time is over, and when the row is gone, the journal knows it."""
    await shop.post(json={"deck": 1})
    await let_answers_expire()
    await refuse_again(shop, json={"deck": 1})
    await run_in_async_database_transaction(lambda session: session.execute(delete(ChargedRequest)))
    await refuse_again(shop, json={"deck": 1})


async def test_a_request_that_failed_leaves_its_key_free(shop: Shop) -> None:
    """It may be made again, as it was or otherwise; the price too may be another then."""
    assert (await shop.post("/upload?status=500")).status_code == 500
    assert (await shop.post("/upload?status=404", content=b"x")).status_code == 404
    shop.api.app.post("/api/v1/cheaper")(lambda: "slides")
    assert (await shop.post("/upload", content=b"x")).status_code == 200
    assert len(shop.runs) == 3
    assert await shop.paid() == PRICE


async def test_work_that_used_nothing_is_answered_again_too(shop: Shop) -> None:
    """Nothing is charged; once its answer is no longer kept it may be done again."""
    for _ in range(2):
        assert (await shop.post("/upload?used=0")).status_code == 200
    assert len(shop.runs) == 1
    await let_answers_expire()
    assert (await shop.post("/upload?used=0")).status_code == 200
    assert len(shop.runs) == 2
    assert await shop.paid() == 0


async def test_an_endpoint_of_two_prices_knows_its_request_by_whichever_was_used(
    shop: Shop,
) -> None:
    """The first charge may be lowered to nothing, and the request is charged all the same."""

    async def twice(first: Charged, second: Annotated[Reservation, Depends(charge(5))]) -> int:
        shop.runs.append("twice")
        first.used = 0
        return second.used

    shop.api.app.post("/api/v1/twice")(twice)
    for _ in range(2):
        assert (await shop.post("/twice")).json() == 5
    await let_answers_expire()
    answer = await shop.post("/twice")
    assert error_type_of(answer) == "ALREADY_CHARGED"
    assert shop.runs == ["twice"]
    assert await shop.paid() == 5


async def test_a_key_that_nobody_can_use_is_refused(shop: Shop) -> None:
    """Empty, or longer than a key may be: 422, and the header is named."""
    for key in ("", "k" * 256):
        answer = await shop.post(headers={"Idempotency-Key": key})
        assert (answer.status_code, error_type_of(answer)) == (422, "VALIDATION_ERROR")
        assert "idempotency-key" in answer.text.lower()
    assert shop.runs == []


async def test_a_claim_whose_commit_was_lost_is_the_same_claim(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Done twice by whoever asks, since nobody knows whether the first was committed."""
    run = run_in_async_database_transaction

    async def run_twice(work: Callable[[Session], Any]) -> Any:
        await run(work)
        return await run(work)

    monkeypatch.setattr(charging, "run_in_async_database_transaction", run_twice)
    assert (await shop.post(json={"deck": 1})).status_code == 201
    assert await shop.paid() == PRICE


async def test_a_claim_whose_answer_was_lost_gives_its_credits_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503; the same request is then done, as if nothing had been before."""
    run = run_in_async_database_transaction
    times = itertools.count(1)

    async def run_and_lose_the_first_answer(work: Callable[[Session], Any]) -> Any:
        result = await run(work)
        if next(times) == 1:
            raise RetryableDatabaseError(None, None, CONNECTION_LOST)
        return result

    monkeypatch.setattr(
        charging, "run_in_async_database_transaction", run_and_lose_the_first_answer
    )
    assert (await shop.post(json={"deck": 1})).status_code == 503
    assert shop.runs == []
    assert (await shop.post(json={"deck": 1})).status_code == 201
    assert await shop.paid() == PRICE


async def test_nothing_is_kept_of_somebody_erased_meanwhile(shop: Shop) -> None:
    """The work is charged and answered; its answer is not kept, nor are those of before."""
    await shop.post(json={"deck": 1})
    assert await kept_answers() == 1

    async def erase(reservation: Charged) -> str:
        await run_in_async_database_transaction(
            lambda session: erase_user(session, reservation.user_id)
        )
        return "slides"

    shop.api.app.post("/api/v1/erase")(erase)
    answer = await shop.post("/erase", headers={"Idempotency-Key": "job-2"})
    assert answer.status_code == 200
    assert await fetch(select(func.count()).select_from(ChargedRequest)) == 0


def test_the_worker_removes_what_is_kept_no_longer(db: Session) -> None:
    """Expired answers and claims, and no others; a thousand at a time."""
    user = User(email="ada@example.com", password_hash="x")
    db.add(user)
    db.flush()
    now = db.scalar(select(func.now()))
    kept = {"user_id": user.user_id, "request_digest": bytes(32), "claim_id": user.user_id}
    for number, seconds in enumerate([-1, 0, 3_600]):
        values = {**kept, "hold_seq": number, "key_digest": bytes(31) + bytes([number])}
        db.add(
            ChargedRequest(**values, expires_at=now + func.make_interval(0, 0, 0, 0, 0, 0, seconds))
        )
    db.commit()
    assert charged_requests.drop_expired(db, limit=1) == 1
    assert work.drop_bodies()
    assert not work.drop_bodies()
    with SessionLocal() as session:
        assert session.scalars(select(ChargedRequest.hold_seq)).all() == [2]
