"""What of a request's path is logged: which route it was, never what somebody wrote into it."""

import json

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware

from src.api.src import metrics
from src.api.src.request_context import RequestContextMiddleware
from src.common.observability import configure_logging
from src.common.settings import load_settings
from tests.fixtures.api import Api, logging_restored


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        ("/api/v1/user/zoe@example.com", "/api/v1/user/{user_id}"),
        ("/api/v1/user/00000000-0000-0000-0000-000000000001", "/api/v1/user/{user_id}"),
        ("/api/v1/nowhere/zoe@example.com", "/api/v1/nowhere/*"),
        ("/api/v1/nowhere/zoe%40example.com?email=zoe@example.com", "/api/v1/nowhere/*"),
        ("/livez", "/livez"),
    ],
)
async def test_a_path_is_logged_without_its_values(
    api: Api, capsys: pytest.CaptureFixture[str], path: str, logged: str
) -> None:
    """The route's template where one matched, a masked path elsewhere."""
    with logging_restored():
        configure_logging(
            load_settings(env="staging", **dict.fromkeys(SECRETS, "sk_live_long-and-random"))
        )
        await api.client.get(path)
    written = capsys.readouterr().err
    lines = [json.loads(line) for line in written.splitlines()]
    assert [line["path"] for line in lines if line["event"] == "Request"] == [logged]
    assert "zoe" not in written  # no letters of a request id, which is hexadecimal


SECRETS = ("database_password", "auth_jwt_secret", "stripe_secret_key", "stripe_webhook_secret")


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/shops/zoe@example.com/items/3", "/shops/{shop}/items/{item}"),
        ("/files/zoe@example.com/a/b", "/files/{rest:path}"),
        ("/inner/zoe@example.com/items/3", "/inner/{shop}/items/{item}"),
        ("/fixed/items/3", "/fixed/items/{item}"),
        ("/fixed/files/zoe@example.com/b", "/fixed/files/{rest:path}"),
    ],
)
async def test_no_value_of_any_application_s_path_is_in_the_metrics(
    monkeypatch: pytest.MonkeyPatch, path: str, route: str
) -> None:
    """Neither of a router's prefix nor one with slashes: each would be a label of its own."""
    seen: list[str] = []

    def note(_method: str, route: str, _status: int, _seconds: float) -> None:
        seen.append(route)

    monkeypatch.setattr(metrics, "observe_request", note)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(_an_application()), base_url="http://test"
    ) as client:
        answer = await client.get(path)
    assert (answer.status_code, seen) == (200, [route])


def _an_application() -> FastAPI:
    """One with prefixes, a mounted application, and paths within a path."""
    router, inner = APIRouter(), FastAPI()

    def read_item(item: int) -> int:
        return item

    def read_file(rest: str) -> str:
        return rest

    router.get("/items/{item}")(read_item)
    router.get("/files/{rest:path}")(read_file)
    inner.get("/items/{item}")(read_item)
    app = FastAPI(middleware=[Middleware(RequestContextMiddleware)])
    app.get("/files/{rest:path}")(read_file)
    app.include_router(router, prefix="/shops/{shop}")
    app.include_router(router, prefix="/fixed")
    app.mount("/inner/{shop}", inner)
    return app
