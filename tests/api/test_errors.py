"""One body for every error, request ids, limits, and a document that tells the truth."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Depends
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from src.api.src.charging import charge
from src.api.src.errors import ERRORS
from tests.api.tokens import make_token
from tests.fixtures.api import Api, make_user

FRAMEWORKS_OWN = [
    ("GET", "/api/v1/nowhere", 404, "NOT_FOUND"),
    ("GET", "/nowhere", 404, "NOT_FOUND"),
    ("GET", "/api/v1/user/", 404, "NOT_FOUND"),
    ("DELETE", "/api/v1/webhook", 405, "METHOD_NOT_ALLOWED"),
    ("GET", "/api/v1/update_profile", 405, "METHOD_NOT_ALLOWED"),
    ("OPTIONS", "/livez", 405, "METHOD_NOT_ALLOWED"),
    ("TRACE", "/livez", 405, "METHOD_NOT_ALLOWED"),
    ("BREW", "/livez", 405, "METHOD_NOT_ALLOWED"),
]


@pytest.mark.parametrize(("method", "path", "status", "error_type"), FRAMEWORKS_OWN)
async def test_the_frameworks_own_errors_wear_the_one_body(
    api: Api, method: str, path: str, status: int, error_type: str
) -> None:
    """404 and 405 look like every other error; 405 names the methods there are."""
    answer = await api.client.request(method, path)
    assert answer.status_code == status
    detail = answer.json()["detail"]
    assert detail["error_type"] == error_type
    assert detail["request_id"] == answer.headers["X-Request-ID"]
    assert detail["message"]
    assert ("Allow" in answer.headers) == (status == 405)


async def test_a_harmless_request_id_is_kept(api: Api) -> None:
    """The caller's id comes back in header and body, to be found in both sides' logs."""
    answer = await api.client.get("/nowhere", headers={"X-Request-ID": "front-end_7.A"})
    assert answer.headers.get_list("X-Request-ID") == ["front-end_7.A"]
    assert answer.json()["detail"]["request_id"] == "front-end_7.A"


@pytest.mark.parametrize("given", ["", "a b", "a\tb", "é", "a" * 65, '"}{"x":"'])
async def test_a_request_id_that_could_forge_a_log_line_is_replaced(api: Api, given: str) -> None:
    """Anything but 1 to 64 letters, digits and `._-` is not the id."""
    answer = await api.client.get("/nowhere", headers={b"X-Request-ID": given.encode("latin-1")})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])


async def test_requests_at_once_keep_their_own_ids(api: Api) -> None:
    """The id belongs to the request, not to the process."""
    names = [f"id-{number}" for number in range(20)]
    answers = await asyncio.gather(
        *(api.client.get("/nowhere", headers={"X-Request-ID": name}) for name in names)
    )
    assert [answer.json()["detail"]["request_id"] for answer in answers] == names


async def test_a_defect_of_ours_is_a_500_with_the_request_id_and_no_details(
    api: Api, async_db: AsyncSession
) -> None:
    """The caller learns the id under which we find it, and nothing about our inside."""
    user = await make_user()
    await async_db.execute(text("ALTER TABLE users RENAME COLUMN email TO e_mail"))
    await async_db.commit()
    answer = await api.get(
        f"/user/{user.user_id}", make_token(user.user_id), headers={"X-Request-ID": "broken"}
    )
    assert answer.status_code == 500
    assert answer.headers["X-Request-ID"] == "broken"
    detail = answer.json()["detail"]
    assert (detail["error_type"], detail["request_id"]) == ("INTERNAL_ERROR", "broken")
    assert "email" not in answer.text


async def test_a_declared_body_too_large_is_refused_before_it_is_read(api: Api) -> None:
    """413 PAYLOAD_TOO_LARGE in the one body, on the strength of Content-Length alone."""
    headers = {"Content-Length": "1048577", "Content-Type": "application/json"}
    for path in ("/webhook", "/stripe-webhook"):
        answer = await api.call("POST", path, headers=headers, content=b"{}")
        assert answer.status_code == 413
        assert answer.json()["detail"]["error_type"] == "PAYLOAD_TOO_LARGE"


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/webhook"), ("PATCH", "/update_profile"), ("POST", "/authenticate-jwt")],
)
@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_too_large_is_refused(
    api: Api, method: str, path: str, *, declared: bool
) -> None:
    """More than API_MAX_BODY_BYTES is 413 where a body is read, also sent in pieces."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 65_536

    token = make_token((await make_user()).user_id)
    content = b"x" * 1_048_577 if declared else pieces()
    headers = {"Content-Type": "application/json"}
    answer = await api.call(method, path, token, content=content, headers=headers)
    if path == "/authenticate-jwt" and not declared:
        assert answer.status_code == 200  # it reads no body
    else:
        assert answer.status_code == 413
        detail = answer.json()["detail"]
        assert detail["error_type"] == "PAYLOAD_TOO_LARGE"
        assert detail["request_id"] == answer.headers["X-Request-ID"]


async def test_a_body_of_exactly_the_limit_is_read(api: Api) -> None:
    """The limit itself passes: the webhook judges its signature."""
    answer = await api.call("POST", "/webhook", content=b"x" * 1_048_576)
    assert answer.json()["detail"]["error_type"] == "WEBHOOK_SIGNATURE_INVALID"


async def test_validation_errors_name_the_field_and_not_the_value(api: Api) -> None:
    """`errors` says where and what; the input may be a secret."""
    user = await make_user()
    body = {"first_name": {"secret": "s3cr3t"}, "company": "c0nf1d3ntial" * 50}
    answer = await api.call("PATCH", "/update_profile", make_token(user.user_id), json=body)
    detail = answer.json()["detail"]
    assert {error["field"] for error in detail["errors"]} == {"body.first_name", "body.company"}
    assert "s3cr3t" not in answer.text
    assert "c0nf1d3ntial" not in answer.text


def documented(api: Api) -> dict[tuple[str, str], dict[str, Any]]:
    """The answers of each operation of the OpenAPI document."""
    paths = api.app.openapi()["paths"]
    return {
        (method.upper(), path): operation["responses"]
        for path, operations in paths.items()
        for method, operation in operations.items()
    }


async def test_the_document_lists_the_endpoints(api: Api) -> None:
    """What the front end calls is there; the webhook's second path is its alias and not listed."""
    assert set(documented(api)) >= {
        ("GET", "/livez"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        ("GET", "/api/v1/user/{user_id}"),
        ("GET", "/api/v1/user/{user_id}/transactions"),
        ("POST", "/api/v1/authenticate-jwt"),
        ("PATCH", "/api/v1/update_profile"),
        ("GET", "/api/v1/user/{user_id}/credits"),
        ("GET", "/api/v1/user/{user_id}/credits/entries"),
        ("GET", "/api/v1/user/{user_id}/credits/explain"),
        ("POST", "/api/v1/user/{user_id}/credits/spend"),
        ("POST", "/api/v1/user/{user_id}/credits/grant"),
        ("POST", "/api/v1/user/{user_id}/credits/adjust"),
        ("GET", "/api/v1/user/{user_id}/credits/holds"),
        ("POST", "/api/v1/user/{user_id}/credits/holds"),
        ("GET", "/api/v1/user/{user_id}/credits/holds/{seq}"),
        ("POST", "/api/v1/user/{user_id}/credits/holds/{seq}/capture"),
        ("POST", "/api/v1/user/{user_id}/credits/holds/{seq}/release"),
        ("POST", "/api/v1/user/{user_id}/credits/holds/{seq}/renew"),
        ("POST", "/api/v1/webhook"),
        ("GET", "/api/v1/packages"),
    }
    assert ("POST", "/api/v1/stripe-webhook") not in documented(api)
    assert (await api.client.get("/docs")).status_code == 200
    assert (await api.client.get("/openapi.json")).json() == api.app.openapi()


async def test_every_documented_error_is_of_our_list(api: Api) -> None:
    """Each example is one of ERRORS, under its status, in the one body."""
    for operation, responses in documented(api).items():
        for status, response in responses.items():
            if status in {"200", "304"}:
                continue
            content = response["content"]["application/json"]
            assert content["schema"] == {"$ref": "#/components/schemas/ErrorBody"}, operation
            for error_type, example in content["examples"].items():
                assert str(ERRORS[error_type][0]) == status
                assert example["value"]["detail"]["error_type"] == error_type


async def test_every_error_of_our_list_is_documented_somewhere(api: Api) -> None:
    """No error type is known to the code alone; 404 and 405 belong to no operation.

    Some are those of endpoints that charge: here one of an application's own.
    """

    async def render() -> None:
        """Work that costs credits."""

    api.app.post("/render", dependencies=[Depends(charge(10))])(render)
    examples = {
        error_type
        for responses in documented(api).values()
        for response in responses.values()
        for error_type in response.get("content", {})
        .get("application/json", {})
        .get("examples", {})
    }
    assert set(ERRORS) - examples == {"NOT_FOUND", "METHOD_NOT_ALLOWED"}


async def test_the_document_says_which_headers_come_with_errors(api: Api) -> None:
    """401 documents WWW-Authenticate, 503 Retry-After."""
    for operation, responses in documented(api).items():
        for status, header in (("401", "WWW-Authenticate"), ("503", "Retry-After")):
            if status in responses:
                assert header in responses[status]["headers"], operation


async def test_the_document_names_bearer_tokens_where_they_are_needed(api: Api) -> None:
    """Clients are generated from it: each operation below /api/v1 but two is secured."""
    open_to_all = ("/webhook", "/packages")
    for path, operations in api.app.openapi()["paths"].items():
        for operation in operations.values():
            secured = path.startswith("/api/v1/") and not path.endswith(open_to_all)
            assert ("security" in operation) == secured, path
    assert "fsk_" in json.dumps(api.app.openapi()["components"]["securitySchemes"])
