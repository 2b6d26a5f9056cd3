"""A charged request with an `Idempotency-Key`: done once, then answered the same or refused."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends
from fastapi.responses import StreamingResponse
from sqlalchemy import delete, func, update

from src.api.src.charging import charge
from src.common.async_database import run_in_async_database_transaction
from src.common.credits import ledger
from src.common.credits.reservation import Reservation
from src.common.models import ChargedRequest
from tests.api.charging_shop import KEY, PRICE, START, Charged, Shop, kept_answers
from tests.api.tokens import make_token
from tests.fixtures.api import error_type_of, make_user


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
