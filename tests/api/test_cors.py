"""Pages of configured origins may call the API from a browser, and read its errors; no others."""

from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from src.common.async_database import get_async_engine
from src.common.settings import Settings
from tests.api.tokens import make_token
from tests.fixtures.api import Api, StartApi, make_user

OURS = "https://app.example"
ALSO_OURS = "http://localhost:3000"
ORIGIN = {"Origin": OURS}


async def preflight(api: Api, path: str, method: str, origin: str = OURS) -> httpx.Response:
    """What a browser asks before it sends such a request."""
    return await api.client.options(
        path,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
        },
    )


async def test_a_browser_may_ask_before_each_operation(start_api: StartApi) -> None:
    """Every operation of the document, for each of our origins, with the headers it takes."""
    api = await start_api(CORS_ORIGINS=f"{OURS}, {ALSO_OURS}")
    for path, operations in api.app.openapi()["paths"].items():
        for method in operations:
            for origin in (OURS, ALSO_OURS):
                answer = await preflight(api, path, method.upper(), origin)
                assert answer.status_code == 200, (method, path)
                assert answer.headers["Access-Control-Allow-Origin"] == origin
            assert "Access-Control-Allow-Credentials" not in answer.headers
    for origin in ("https://evil.example", "https://app.example.evil", "null"):
        answer = await preflight(api, "/livez", "GET", origin)
        assert answer.status_code == 400
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_answers_and_errors_may_be_read(start_api: StartApi) -> None:
    """Also those that the middlewares give, and a defect's; with the headers that say more."""
    api = await start_api(
        CORS_ORIGINS=OURS,
        DATABASE_ASYNC_POOL_SIZE="1",
        DATABASE_ASYNC_MAX_OVERFLOW="0",
        DATABASE_POOL_TIMEOUT_SECONDS="0.1",
    )
    user = await make_user()
    token = make_token(user.user_id)
    own = f"/user/{user.user_id}/credits"
    answers = {
        200: await api.get(own, token, headers=ORIGIN),
        401: await api.get(own, headers=ORIGIN),
        404: await api.get("/nowhere", headers=ORIGIN),
        405: await api.call("DELETE", "/webhook", headers=ORIGIN),
        413: await api.call("POST", "/webhook", headers=ORIGIN, content=b"x" * 2_000_000),
        422: await api.get("/user/nobody", token, headers=ORIGIN),
    }
    async with get_async_engine().connect():
        answers[503] = await api.get(own, token, headers=ORIGIN)
    api.app.state.verifier = None
    answers[500] = await api.get(own, token, headers=ORIGIN)
    for status, answer in answers.items():
        assert answer.status_code == status
        assert answer.headers["Access-Control-Allow-Origin"] == OURS, status
        assert "Origin" in answer.headers["Vary"], status
        readable = answer.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"ETag", "Idempotent-Replayed", "Retry-After", "X-Request-ID"} <= set(readable)
    stranger = await api.get(own, token, headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in stranger.headers


async def test_by_default_no_page_may(api: Api) -> None:
    """Nothing of it is said."""
    answer = await api.client.get("/livez", headers=ORIGIN)
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert (await preflight(api, "/livez", "GET")).status_code == 405


@pytest.mark.parametrize(
    "origins", ["*", "app.example", "https://app.example/", "https://App.example", f"{OURS} {OURS}"]
)
def test_what_no_browser_calls_an_origin_is_refused(origins: Any) -> None:
    """It would allow nobody, or everybody."""
    with pytest.raises(ValidationError, match="cors_origins"):
        Settings(cors_origins=origins)
