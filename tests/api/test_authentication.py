"""Who may reach what: users their own rows, admins and scoped keys others'."""

import datetime as dt
import uuid
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from src.common.accounts.api_keys import Scope, list_api_keys, revoke_api_key
from src.common.async_database import run_in_async_database_transaction
from src.common.models.api_key import ApiKey
from src.common.models.user import User
from tests.api.tokens import make_token
from tests.fixtures.api import Api, error_type_of, fetch, make_api_key, make_user

OTHERS = ("", "/transactions")


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and error type."""
    return answer.status_code, error_type_of(answer)


@pytest.mark.parametrize(
    "header", [None, "", "Basic YTpi", "Bearer", "Token abc", "Bearer ", "bearer"]
)
async def test_a_request_without_a_bearer_token_is_refused(api: Api, header: str | None) -> None:
    """No token: 401 AUTHENTICATION_FAILURE with a WWW-Authenticate header."""
    headers = {} if header is None else {"Authorization": header}
    answer = await api.get(f"/user/{uuid.uuid4()}", headers=headers)
    assert error_of(answer) == (401, "AUTHENTICATION_FAILURE")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("token", ["garbage", "a.b.c", "fsk_", "fsk_unknown", "fsk_\xff", "\xe9"])
async def test_a_worthless_token_is_refused(api: Api, token: str) -> None:
    """A token or key that nobody issued: 401 AUTH_TOKEN_INVALID."""
    headers = {b"Authorization": f"Bearer {token}".encode("latin-1")}
    answer = await api.client.get(f"/api/v1/user/{uuid.uuid4()}", headers=headers)
    assert error_of(answer) == (401, "AUTH_TOKEN_INVALID")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_an_expired_token_says_so(api: Api) -> None:
    """The front end can tell expiry, for which it fetches a new token, from forgery."""
    user = await make_user()
    answer = await api.get(f"/user/{user.user_id}", make_token(user.user_id, lifetime=-61))
    assert error_of(answer) == (401, "AUTH_TOKEN_EXPIRED")


@pytest.mark.parametrize("path", OTHERS)
async def test_a_foreign_user_is_the_same_403_whether_or_not_they_exist(
    api: Api, path: str
) -> None:
    """The whole answer, but for the request id, is the same for both."""
    user, other = await make_user(), await make_user()
    token = make_token(user.user_id)
    answers = [
        await api.get(f"/user/{user_id}{path}", token, headers={"X-Request-ID": "same"})
        for user_id in (other.user_id, uuid.uuid4())
    ]
    assert error_of(answers[0]) == (403, "FORBIDDEN")
    assert answers[0].json() == answers[1].json()
    assert answers[1].status_code == 403


@pytest.mark.parametrize("path", OTHERS)
async def test_an_admin_reaches_every_user(api: Api, path: str) -> None:
    """`user_type=admin` opens others' rows, and says who does not exist."""
    admin, other = await make_user(user_type="admin"), await make_user()
    token = make_token(admin.user_id)
    assert (await api.get(f"/user/{other.user_id}{path}", token)).status_code == 200
    missing = await api.get(f"/user/{uuid.uuid4()}{path}", token)
    assert error_of(missing) == (404, "USER_NOT_FOUND")


@pytest.mark.parametrize("path", OTHERS)
async def test_a_key_needs_the_scope(api: Api, path: str) -> None:
    """`users:read` opens users' rows; every other scope together does not."""
    other = await make_user()
    url = f"/user/{other.user_id}{path}"
    assert (await api.get(url, await make_api_key(Scope.USERS_READ))).status_code == 200
    others = [scope for scope in Scope if scope is not Scope.USERS_READ]
    assert error_of(await api.get(url, await make_api_key(*others))) == (403, "FORBIDDEN")


CLAIMED_ROLES: dict[str, Any] = {
    "role": "admin",
    "user_type": "admin",
    "scopes": ["users:read"],
    "app_metadata": {"role": "admin", "user_type": "admin"},
}


@pytest.mark.parametrize("claim", CLAIMED_ROLES)
async def test_roles_come_only_from_our_own_table(api: Api, claim: str) -> None:
    """Whatever role a genuine token claims, its user is what `users.user_type` says."""
    user, other = await make_user(), await make_user()
    claims = {claim: CLAIMED_ROLES[claim]}
    token = make_token(user.user_id, **claims)
    assert error_of(await api.get(f"/user/{other.user_id}", token)) == (403, "FORBIDDEN")


async def test_a_genuine_token_without_a_row_is_404_but_for_signing_in(api: Api) -> None:
    """Only `authenticate-jwt` makes users; before it there is USER_NOT_FOUND."""
    user_id = uuid.uuid4()
    token = make_token(user_id)
    for method, path in (
        ("GET", f"/user/{user_id}"),
        ("GET", f"/user/{user_id}/transactions"),
        ("PATCH", "/update_profile"),
    ):
        answer = await api.call(method, path, token, json={} if method == "PATCH" else None)
        assert error_of(answer) == (404, "USER_NOT_FOUND"), path
    assert (await api.call("POST", "/authenticate-jwt", token)).status_code == 200
    assert (await api.get(f"/user/{user_id}", token)).status_code == 200


async def test_a_deactivated_user_is_refused_everywhere(api: Api) -> None:
    """`is_active=false`: 403 USER_INACTIVE on every endpoint, signing in included."""
    user = await make_user(is_active=False)
    token = make_token(user.user_id)
    for method, path in (
        ("GET", f"/user/{user.user_id}"),
        ("GET", f"/user/{user.user_id}/transactions"),
        ("PATCH", "/update_profile"),
        ("POST", "/authenticate-jwt"),
    ):
        answer = await api.call(method, path, token, json={} if method == "PATCH" else None)
        assert error_of(answer) == (403, "USER_INACTIVE"), path


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/authenticate-jwt"), ("PATCH", "/update_profile")]
)
async def test_a_key_has_no_profile(api: Api, method: str, path: str) -> None:
    """Endpoints about the caller's own person refuse a service, whatever its scopes."""
    answer = await api.call(method, path, await make_api_key(*Scope), json={})
    assert error_of(answer) == (403, "FORBIDDEN")


async def test_a_revoked_key_is_refused(api: Api) -> None:
    """A key works until it is revoked, and not after."""
    user = await make_user()
    key = await make_api_key(Scope.USERS_READ)
    assert (await api.get(f"/user/{user.user_id}", key)).status_code == 200
    record = await fetch(select(ApiKey))
    await run_in_async_database_transaction(lambda session: revoke_api_key(session, record.key_id))
    answer = await api.get(f"/user/{user.user_id}", key)
    assert error_of(answer) == (401, "AUTH_TOKEN_INVALID")


async def test_an_expired_key_is_refused(api: Api, async_db: AsyncSession) -> None:
    """A key works until its expiry, by the database's clock, and not after."""
    user = await make_user()
    in_an_hour = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    key = await make_api_key(Scope.USERS_READ, expires_at=in_an_hour)
    assert (await api.get(f"/user/{user.user_id}", key)).status_code == 200
    record = (await async_db.scalars(select(ApiKey))).one()
    record.expires_at = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    await async_db.commit()
    answer = await api.get(f"/user/{user.user_id}", key)
    assert error_of(answer) == (401, "AUTH_TOKEN_INVALID")


@pytest.mark.usefixtures("async_db")
async def test_the_key_itself_is_not_stored() -> None:
    """No column of the row holds the key; its last four characters tell keys apart."""
    key = await make_api_key(Scope.USERS_READ)
    assert key.startswith("fsk_")
    assert len(key) >= 47
    (record,) = await run_in_async_database_transaction(list_api_keys)
    stored = [getattr(record, attribute.key) for attribute in ApiKey.__mapper__.column_attrs]
    assert key not in str(stored)
    assert key.removeprefix("fsk_").encode() not in record.key_hash
    assert record.last_four == key[-4:]


async def test_a_key_with_a_scope_of_the_future_keeps_those_we_know(
    api: Api, async_db: AsyncSession
) -> None:
    """A row with an unknown scope, written by a newer release, is no error."""
    user = await make_user()
    key = await make_api_key(Scope.USERS_READ)
    record = (await async_db.scalars(select(ApiKey))).one()
    record.scopes = ["decks:render", "users:read"]
    await async_db.commit()
    assert (await api.get(f"/user/{user.user_id}", key)).status_code == 200


async def test_an_erased_user_cannot_come_back(api: Api, async_db: AsyncSession) -> None:
    """A token of an erased account neither signs in nor writes an e-mail into the row."""
    user = await make_user(email="gone@example.com")
    row = await async_db.get_one(User, user.user_id)
    row.email, row.is_active = f"erased+{user.user_id}@invalid", False
    row.erased_at = dt.datetime.now(dt.UTC)
    await async_db.commit()
    answer = await api.sign_in(user.user_id, email="gone@example.com")
    assert error_of(answer) == (403, "USER_INACTIVE")
    assert (await fetch(select(User.email))).endswith("@invalid")
