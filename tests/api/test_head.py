"""`HEAD` wherever `GET` is; and no answer that sends anybody where a `Host` header says."""

import json

import httpx
import pytest
from fastapi import Response

from tests.api.tokens import make_token
from tests.fixtures.api import Api, make_user

CHANGING = {"x-request-id", "date"}


def headers_of(answer: httpx.Response) -> dict[str, str]:
    """Those that two answers to the same question share."""
    return {name: value for name, value in answer.headers.items() if name not in CHANGING}


async def test_head_is_get_without_the_body(api: Api) -> None:
    """Every path of the API that takes GET: the same status and headers, found or refused."""
    user = await make_user()
    bearer = {"Authorization": f"Bearer {make_token(user.user_id)}"}
    paths = [path for path, operations in api.app.openapi()["paths"].items() if "get" in operations]
    assert {"/livez", "/api/v1/user/{user_id}/credits"} <= set(paths)
    answered: set[int] = set()
    for path in [*paths, "/", "/docs", "/openapi.json", "/nowhere"]:
        url = path.replace("{user_id}", str(user.user_id)).replace("{seq}", "1")
        for headers in (bearer, {}):
            got = await api.client.get(url, headers=headers)
            head = await api.client.head(url, headers=headers)
            assert (head.status_code, head.content) == (got.status_code, b""), url
            if path != "/metrics":  # its length is its figures'
                assert headers_of(head) == headers_of(got), url
            answered.add(head.status_code)
    assert answered >= {200, 401, 404}


async def test_head_honours_an_etag(api: Api) -> None:
    """As a conditional GET does: 304."""
    user = await make_user()
    token = make_token(user.user_id)
    path = f"/user/{user.user_id}/credits"
    etag = (await api.call("HEAD", path, token)).headers["ETag"]
    again = await api.call("HEAD", path, token, headers={"If-None-Match": etag})
    assert (again.status_code, again.headers["ETag"]) == (304, etag)


async def test_head_is_nowhere_else(api: Api) -> None:
    """Nothing that changes anything is done for it; 405 names it beside GET, not beside POST."""
    answer = await api.client.head("/api/v1/authenticate-jwt")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    answer = await api.client.delete("/livez")
    assert answer.headers["Allow"] == "HEAD, GET"


async def test_an_application_answers_head_itself_where_it_has_a_route_for_it(api: Api) -> None:
    """Also where it has none for GET."""

    @api.app.head("/file")
    def describe() -> Response:
        return Response(headers={"X-Size": "7"})

    answer = await api.client.head("/file")
    assert (answer.status_code, answer.headers["X-Size"]) == (200, "7")


async def test_head_is_logged_as_head(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """And with its route's template, as every request."""
    user = await make_user()
    capsys.readouterr()
    await api.call("HEAD", f"/user/{user.user_id}")
    line = capsys.readouterr().err
    assert "HEAD" in line
    assert "/api/v1/user/{user_id}" in line


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_no_answer_repeats_the_host_it_was_told(api: Api, method: str) -> None:
    """A slash too many is another path, answered 404; nobody is sent to somebody else's site."""
    user = await make_user()
    for path in ("/livez/", "/api/v1/authenticate-jwt/", f"/api/v1/user/{user.user_id}/", "//"):
        url = f"{str(api.client.base_url).rstrip('/')}{path}"  # whole: of "//" it would make "/"
        answer = await api.client.request(method, url, headers={"Host": "evil.example"})
        assert answer.status_code == 404, path
        assert "evil.example" not in json.dumps(dict(answer.headers)) + answer.text
