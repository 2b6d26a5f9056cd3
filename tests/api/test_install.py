"""`install(app)`: a bare FastAPI application with all that endpoints need, by one call."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import Response

from src.api.src.charging import charge
from src.api.src.dependencies import Caller, SettingsOf
from src.api.src.install import install
from src.common.async_database import get_async_engine, run_in_async_database_transaction
from src.common.credits import ledger
from src.common.exceptions import NotFound
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.api.tokens import ISSUER, jwk_set, make_token
from tests.fixtures.api import (
    Api,
    balance_of,
    client_of,
    error_type_of,
    logging_restored,
    make_user,
)

START = 100


class Stamp(BaseHTTPMiddleware):
    """A middleware of the application's own."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Add a header to the answer."""
        response = await call_next(request)
        response.headers.append("X-Stamp", "stamped")
        return response


def an_application(happened: list[str]) -> FastAPI:
    """Bare but for a lifespan and endpoints of its own."""

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncGenerator[dict[str, str]]:
        assert app.state.settings == get_settings()
        happened.append("started")
        yield {"own": "state"}
        assert get_async_engine().pool.checkedin()  # type: ignore[attr-defined]  # a queue's
        happened.append("stopped")

    app = FastAPI(lifespan=own)

    @app.post("/render", dependencies=[Depends(charge(10))])
    async def render(request: Request) -> dict[str, Any]:
        happened.append("rendered")
        return {"body": (await request.body()).decode()}

    @app.get("/me")
    async def me(caller: Caller, settings: SettingsOf) -> str:
        return f"{caller.actor} {settings.env}"

    @app.get("/missing")
    async def missing() -> None:
        raise NotFound("Deck not found", "DECK_NOT_FOUND")

    @app.get("/defect")
    async def defect() -> None:
        raise RuntimeError

    return app


@pytest.fixture
async def bare(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Api]:
    """The application, running, between middlewares of its own; what happened is in its state."""
    assert fresh_database
    for name, value in {
        "AUTH_JWT_SECRET": jwk_set(),
        "AUTH_JWT_ISSUER": ISSUER,
        "API_MAX_BODY_BYTES": "2048",
        "CHECKOUT_URL": "https://shop.example/credits",
    }.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    happened: list[str] = []
    app = an_application(happened)
    app.add_middleware(Stamp)
    install(app)
    with logging_restored():
        async with app.router.lifespan_context(app) as state, client_of(app) as api:
            app.state.happened = happened
            assert state == {"own": "state"}
            yield api
    assert happened[-1] == "stopped"


async def test_a_bare_application_charges(bare: Api) -> None:
    """Once for a key, with the answer again; its own middleware adds nothing to that twice."""
    user_id = (await make_user()).user_id
    headers = {"Authorization": f"Bearer {make_token(user_id)}", "Idempotency-Key": "job"}
    poor = await bare.client.post("/render", headers=headers)
    assert (poor.status_code, error_type_of(poor)) == (402, "INSUFFICIENT_CREDITS")
    assert poor.json()["detail"]["checkout_url"] == "https://shop.example/credits"
    await run_in_async_database_transaction(
        lambda session: ledger.grant(session, user_id, START, key="start")
    )
    first, again = [
        await bare.client.post("/render", headers=headers, content=b"deck") for _ in range(2)
    ]
    assert first.json()["body"] == "deck"
    assert (again.text, again.headers["Idempotent-Replayed"]) == (first.text, "true")
    for answer in (first, again):
        assert answer.headers.get_list("X-Stamp") == ["stamped"]
    assert bare.app.state.happened == ["started", "rendered"]
    assert await balance_of(user_id) == START - 10


async def test_a_bare_application_knows_who_asks(bare: Api) -> None:
    """Tokens are verified, settings are there."""
    user_id = (await make_user()).user_id
    answer = await bare.client.get(
        "/me", headers={"Authorization": f"Bearer {make_token(user_id)}"}
    )
    assert answer.json() == f"user:{user_id} local"
    assert error_type_of(await bare.client.get("/me")) == "AUTHENTICATION_FAILURE"


@pytest.mark.parametrize(
    ("method", "path", "status", "error_type"),
    [
        ("GET", "/missing", 404, "DECK_NOT_FOUND"),
        ("GET", "/nowhere", 404, "NOT_FOUND"),
        ("GET", "/render", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/defect", 500, "INTERNAL_ERROR"),
    ],
)
async def test_a_bare_applications_errors_wear_the_one_body(
    bare: Api, method: str, path: str, status: int, error_type: str
) -> None:
    """Its own, the framework's and defects, each with the request's id."""
    answer = await bare.client.request(method, path)
    assert (answer.status_code, error_type_of(answer)) == (status, error_type)
    assert answer.json()["detail"]["request_id"] == answer.headers["X-Request-ID"]


async def test_a_bare_applications_bodies_are_bounded(bare: Api) -> None:
    """API_MAX_BODY_BYTES holds for it, declared or not, before anything is charged."""
    user_id = (await make_user()).user_id

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 1_024

    headers = {"Authorization": f"Bearer {make_token(user_id)}", "Idempotency-Key": "job"}
    for content in (b"x" * 3_072, pieces()):
        answer = await bare.client.post("/render", headers=headers, content=content)
        assert (answer.status_code, error_type_of(answer)) == (413, "PAYLOAD_TOO_LARGE")
    assert bare.app.state.happened == ["started"]


async def test_an_application_that_was_not_made_ready_says_so() -> None:
    """A charge without `install` is an error that names it, not work for nothing."""
    app = FastAPI()
    found: list[str] = []

    async def render() -> None:
        found.append("rendered")

    app.post("/render", dependencies=[Depends(charge(10))])(render)
    async with client_of(app) as api:
        answer = await api.client.post("/render", headers={"Authorization": "Bearer x"})
    assert answer.status_code == 500
    assert found == []
