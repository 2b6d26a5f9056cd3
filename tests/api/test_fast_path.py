"""Routes with a fast path: what it takes, and that nobody can tell from the answer."""

import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, cast

import httpx
import pytest
from fastapi import APIRouter, Depends
from fastapi.openapi.utils import get_openapi
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from src.api.src.charging_middleware import ChargingMiddleware
from src.api.src.fast_path import FastPathRoute
from src.api.src.principals import Principal
from src.api.src.routes.credit_writes import router
from src.common.accounts.api_keys import Scope
from src.common.credits.domain.commands import Command, Result
from tests.api.credits import GRANT, WRITER, WRITES, done, fresh_key, post
from tests.fixtures.api import Api, make_api_key, make_user

FOR_ITS_TIME = {"seq", "created_at", "effective_at", "expires_at", "request_id"}
"""What of an answer depends on when it was asked for."""
JSON = {"Content-Type": "application/json"}


@dataclass
class Twins:
    """A service and two users with the same past: two lots, and the hold number 3.

    What is asked for the first is served by FastAPI, for the second by the fast path if it will.
    """

    api: Api
    token: str
    user_ids: tuple[uuid.UUID, uuid.UUID]

    async def ask(
        self, path: str, content: Any = b'{"amount": 1}', headers: Mapping[str, str] = JSON
    ) -> list[tuple[int, Any]]:
        """Both answers to one request: status, and body without what depends on the moment."""
        sent = {"Authorization": "Bearer {token}", **fresh_key(), **headers}
        sent = {name: value.format(token=self.token) for name, value in sent.items()}
        answers: list[httpx.Response] = []
        for user_id, is_known in zip(self.user_ids, (False, True), strict=True):
            await self.make_known(is_known=is_known)
            url = f"/api/v1/user/{path.format(user_id)}"
            answers.append(await self.api.client.post(url, content=content, headers=sent))
        return [(each.status_code, without_moments(each.json())) for each in answers]

    async def make_known(self, *, is_known: bool) -> None:
        """Have the application remember the service's key, or forget it."""
        self.api.app.state.services = services = dict[bytes, Principal]()
        if is_known:
            await post(self.api, self.token, uuid.uuid4(), "spend", {"amount": 1})
            assert services


@pytest.fixture
async def twins(api: Api) -> Twins:
    """Two users, and a service that may do anything to their credits."""
    token = await make_api_key(*WRITER)
    user_ids = (await make_user()).user_id, (await make_user()).user_id
    for user_id in user_ids:
        for _ in range(2):
            await done(api, token, user_id, "grant", GRANT)
        await done(api, token, user_id, "holds", {"amount": 50, "expires_in_seconds": 60})
    return Twins(api, token, user_ids)


async def test_a_plain_request_skips_the_frameworks_machinery(
    twins: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once its key is known, a service's request resolves no dependency, whatever it asks for."""
    await twins.make_known(is_known=True)
    monkeypatch.setattr("fastapi.routing.solve_dependencies", None)
    for path, body in WRITES.items():
        is_of_7 = "capture" in path or "reverse" in path
        path_of_hold = path.replace("/1/", "/7/" if is_of_7 else "/3/")
        answer = await post(twins.api, twins.token, twins.user_ids[0], path_of_hold, body)
        assert answer.status_code == (409 if "renew" in path else 200), (path, answer.text)


async def test_a_plain_request_is_asked_of_its_route_at_once(
    twins: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither routers nor what charges requests see it; what is not plainly right they do."""
    await twins.make_known(is_known=True)
    monkeypatch.setattr(ChargingMiddleware, "__call__", None)
    user_id = twins.user_ids[0]
    answer = await post(twins.api, twins.token, user_id, "spend", {"amount": 1})
    assert answer.status_code == 200
    answer = await post(twins.api, twins.token, user_id, "spend", {"amount": -1})
    assert answer.status_code == 500


@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "error_type"),
    [
        (PoolTimeoutError(), 503, "DATABASE_BUSY"),
        (RuntimeError("a defect"), 500, "INTERNAL_ERROR"),
    ],
)
async def test_what_an_endpoint_raises_is_answered_alike(
    *,
    twins: Twins,
    monkeypatch: pytest.MonkeyPatch,
    is_known: bool,
    error: Exception,
    status: int,
    error_type: str,
) -> None:
    """Whoever asked the endpoint, the framework's handlers answer what it raises, asked once."""
    await twins.make_known(is_known=is_known)
    asked: list[Command] = []

    async def fail(command: Command) -> Result:
        asked.append(command)
        raise error

    monkeypatch.setattr(twins.api.app.state.ledger, "execute", fail)
    answer = await post(twins.api, twins.token, twins.user_ids[0], "spend", {"amount": 1})
    assert (answer.status_code, answer.json()["detail"]["error_type"]) == (status, error_type)
    assert len(asked) == 1


BODIES: list[bytes] = [
    b'{"amount": 1}',
    b'{"amount": 1, "reference": "r", "metadata": {"a": [1.5, null, "\\u00e9"]}}',
    b'{"amount": 1, "amount": 2}',
    b'{"amount": 1.0}',
    b'{"amount": "1"}',
    b'{"amount": true}',
    b'{"amount": 0}',
    b'{"amount": 2147483648}',
    b'{"amount": 1000}',
    b'{"amount": 1, "nonsense": 1}',
    b'{"amount": 1, "reference": ""}',
    b'{"amount": 1, "reference": "\\u0000"}',
    b'{"amount": 1, "reference": "\\ud800"}',
    b'{"amount": 1, "metadata": {"n": NaN}}',
    b'{"amount": 1, "metadata": {"n": 1e999}}',
    b'{"amount": 1, "metadata": {"n": ' + b"9" * 5_000 + b"}}",
    b'{"amount": 1, "metadata": {"n": ' + b"[" * 40 + b"]" * 40 + b"}}",
    b'{"amount": 1, "metadata": ' + b"[" * 100_000 + b"}",
    b"{}",
    b"[]",
    b"null",
    b"",
    b"{",
    b'"\xff"',
    '{"amount": 1}'.encode("utf-16"),
    b'\xef\xbb\xbf{"amount": 1}',
]


HEADERS: list[dict[str, str]] = [
    {"Content-Type": "application/json; charset=utf-8"},
    {"Content-Type": "application/vnd.api+json"},
    {"Content-Type": "text/plain"},
    {},
    {**JSON, "Idempotency-Key": ""},
    {**JSON, "Idempotency-Key": "~mine"},
    {**JSON, "Idempotency-Key": "k" * 256},
    {**JSON, "Authorization": "Basic {token}"},
    {**JSON, "Authorization": "bearer {token}"},
    {**JSON, "Authorization": "Bearer   {token}"},
    {**JSON, "Authorization": "Bearer"},
    {**JSON, "Authorization": "{token}"},
]
PATHS = [
    "{0}/credits/spend?dry_run=true",
    "{0}/credits/spend?dry_run=nonsense",
    "{0}/credits/spend?unknown=1",
    "{0}/credits/holds/0/capture",
    "{0}/credits/holds/x/capture",
    "{0}/credits/holds/1.0/capture",
    "{0}/credits/holds/03/capture?",
    "{0}/credits/holds/2147483648/capture",
    "{0}/credits/holds/2/capture",
    "{0}/credits/holds/3/capture",
    "x/credits/spend",
    "{{{0}}}/credits/spend",
    "urn:uuid:{0}/credits/spend",
    "{0}-/credits/spend",
    "{0.hex}/credits/spend",
]


async def test_every_body_is_read_alike(twins: Twins) -> None:
    """Whatever the bytes, the fast path answers as FastAPI does."""
    answers = {body: await twins.ask("{0}/credits/spend", body) for body in BODIES}
    assert {body[:60]: both for body, both in answers.items() if both[0] != both[1]} == {}
    assert {both[0][0] for both in answers.values()} == {200, 400, 402, 422}


async def test_every_endpoints_body_is_read_alike(twins: Twins) -> None:
    """An unknown field, a list, nothing at all."""
    for path in WRITES:
        for body in (b'{"nonsense": 1}', b"[]", b""):
            ordinary, fast = await twins.ask("{0}/credits/" + path, body)
            assert ordinary == fast, (path, body)


async def test_headers_are_read_alike(twins: Twins) -> None:
    """Content types, keys and schemes, usual and unusual."""
    for headers in HEADERS:
        ordinary, fast = await twins.ask("{0}/credits/spend", headers=headers)
        assert ordinary == fast, headers


async def test_paths_and_queries_are_read_alike(twins: Twins) -> None:
    """Dry runs, numbers of holds, spellings of a user's id."""
    for path in PATHS:
        ordinary, fast = await twins.ask(path)
        assert ordinary == fast, path


async def test_scopes_are_asked_for_alike(twins: Twins) -> None:
    """A service that is known and may not grant is refused, before its body is looked at."""
    twins.token = await make_api_key(Scope.CREDITS_SPEND, service_name="spends only")
    ordinary, fast = await twins.ask("{0}/credits/grant", b'{"nonsense": 1}')
    assert ordinary == fast
    assert fast[0] == 403


async def test_a_body_in_pieces_is_read_whole(twins: Twins) -> None:
    """A body may come in several messages."""

    class Pieces(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b'{"amo'
            yield b'unt": 7}'

    ordinary, fast = await twins.ask("{0}/credits/spend", Pieces())
    assert ordinary == fast
    assert (fast[0], fast[1]["amount"]) == (200, -7)


@pytest.mark.parametrize("key", ["~purchase:cs_1", "k" * 256])
async def test_a_wrong_key_is_named_as_it_was_sent(api: Api, key: str) -> None:
    """The error names the header, not a name of ours."""
    user, token = await make_user(), await make_api_key(*WRITER)
    answer = await post(api, token, user.user_id, "grant", GRANT, {"Idempotency-Key": key})
    detail = answer.json()["detail"]
    assert (answer.status_code, detail["field"]) == (422, "Idempotency-Key")
    assert detail["message"].startswith("Idempotency-Key: must ")


def test_the_document_is_fastapis() -> None:
    """A route with a fast path is documented exactly as an ordinary one."""
    ordinary = APIRouter()
    for route in router.routes:
        assert isinstance(route, FastPathRoute)
        ordinary.add_api_route(
            route.path,
            route.endpoint,
            methods=list(route.methods or ()),
            summary=route.summary,
            responses=route.responses,
            response_model=route.response_model,
            tags=route.tags,
        )
    documents = [
        get_openapi(title="x", version="1", routes=routes)
        for routes in (router.routes, ordinary.routes)
    ]
    assert len(documents[0]["paths"]) == len(WRITES)
    assert documents[0] == documents[1]


def test_a_route_that_it_cannot_serve_is_refused() -> None:
    """A dependency that always has to wait, or no body: the error is at the definition."""

    async def waits() -> int:
        return 1

    async def one(number: Annotated[int, Depends(waits)], body: dict[str, int]) -> None: ...

    async def two() -> None: ...

    with pytest.raises(TypeError, match="at_hand"):
        FastPathRoute("/one", one)
    with pytest.raises(ValueError, match="unpack"):
        FastPathRoute("/two", two)


def without_moments(value: Any) -> Any:
    """The same JSON without instants and ids."""
    match value:
        case dict():
            named = cast("dict[str, Any]", value)
            return {name: without_moments(named[name]) for name in named.keys() - FOR_ITS_TIME}
        case list():
            each_of = cast("Iterable[Any]", value)
            return [without_moments(each) for each in each_of]
        case _:
            return value
