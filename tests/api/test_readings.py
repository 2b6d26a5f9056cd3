"""Balances read along with who asks: nobody can tell from the answer, and it is never of before."""

import asyncio
import uuid
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from src.common.accounts.api_keys import Scope
from src.common.async_database import run_in_async_database_transaction
from src.common.credits.engine import batches, readings
from src.common.models.user import User
from tests.api.credits import done
from tests.api.tokens import make_token
from tests.fixtures.api import Api, StartApi, error_type_of, make_api_key, make_user

OF_THE_REQUEST = {"request_id"}


async def both(api: Api, path: str, token: str, **options: Any) -> tuple[int, Any]:
    """The one answer to a request, read along and by a session."""
    along = await api.get(path, token, **options)
    reads, api.app.state.readings = api.app.state.readings, None
    by_session = await api.get(path, token, **options)
    api.app.state.readings = reads
    assert said(along) == said(by_session)
    return along.status_code, along


def said(answer: httpx.Response) -> tuple[Any, ...]:
    """What of an answer does not depend on the request."""
    body = answer.json() if answer.content else None
    if body and "detail" in body:
        body["detail"] = {k: v for k, v in body["detail"].items() if k not in OF_THE_REQUEST}
    headers = {name: answer.headers.get(name) for name in ("etag", "cache-control")}
    return answer.status_code, body, headers


async def test_nobody_can_tell_how_a_balance_was_read(start_api: StartApi) -> None:
    """One's own, somebody else's, of nobody, deactivated, with an ETag, of a past instant."""
    api = await start_api()
    service = await make_api_key(Scope.CREDITS_GRANT, Scope.CREDITS_SPEND, Scope.CREDITS_READ)
    user, other = await make_user(), await make_user()
    for amount in (5, 7):
        body = {"amount": amount, "source": "promo", "expires_at": "2099-01-01T00:00:00Z"}
        await done(api, service, user.user_id, "grant", body)
    await done(api, service, user.user_id, "holds", {"amount": 6, "expires_in_seconds": 60})
    token, path = make_token(user.user_id), f"/user/{user.user_id}/credits"
    status, answer = await both(api, path, token)
    assert (status, answer.json()["balance"], answer.json()["held"]) == (200, 6, 6)
    match = {"If-None-Match": answer.headers["ETag"]}
    assert (await both(api, path, token, headers=match))[0] == 304
    assert (await both(api, path, token, params={"as_of": "2020-01-01T00:00:00Z"}))[0] == 200
    assert (await both(api, path, token, params={"as_of": "noon"}))[0] == 422
    assert (await both(api, path.upper().replace("/USER", "/user"), token))[0] == 404
    assert (await both(api, f"/user/{other.user_id}/credits", token))[0] == 403
    assert (await both(api, path, service))[0] == 200
    assert (await both(api, path, "garbage"))[0] == 401
    nobody = uuid.uuid4()
    assert (await both(api, f"/user/{nobody}/credits", make_token(nobody)))[0] == 404
    await run_in_async_database_transaction(
        lambda session: session.execute(
            update(User).where(User.user_id == user.user_id).values(is_active=False)
        )
    )
    status, answer = await both(api, path, token)
    assert (status, error_type_of(answer)) == (403, "USER_INACTIVE")


async def test_one_statement_reads_for_all_who_wait_and_never_what_was_before(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each asks after its own grant, and finds it; the statements are fewer than who asked."""
    api = await start_api()
    service = await make_api_key(Scope.CREDITS_GRANT)
    users = [await make_user() for _ in range(12)]
    statements = 0

    async def counted(connection: Any, user_ids: list[uuid.UUID]) -> Any:
        nonlocal statements
        statements += 1
        return await batches.read_users(connection, user_ids)

    monkeypatch.setattr(readings, "read_users", counted)

    async def ask(user_id: uuid.UUID, times: int) -> None:
        token = make_token(user_id)
        for granted in range(1, times + 1):
            await done(api, service, user_id, "grant", {"amount": 1, "source": "promo"})
            answers = await asyncio.gather(
                *(api.get(f"/user/{user_id}/credits", token) for _ in range(3))
            )
            assert {each.json()["balance"] for each in answers} == {granted}

    await asyncio.gather(*(ask(user.user_id, 4) for user in users))
    assert 0 < statements < 12 * 4 * 3


@pytest.mark.parametrize("error", [ConnectionResetError, ZeroDivisionError])
async def test_a_reading_that_fails_is_asked_for_by_a_session(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """By a condition or a bug: that tells what is wrong, if anything is; readings go on after."""
    api = await start_api()
    user = await make_user()
    token, path = make_token(user.user_id), f"/user/{user.user_id}/credits"

    async def fail(*_arguments: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(readings, "read_users", fail)
        answers = await asyncio.gather(*(api.get(path, token) for _ in range(3)))
        assert [each.status_code for each in answers] == [200] * 3
        await run_in_async_database_transaction(
            lambda session: session.execute(
                update(User).where(User.user_id == user.user_id).values(is_active=False)
            )
        )
        assert error_type_of(await api.get(path, token)) == "USER_INACTIVE"
    assert error_type_of(await api.get(path, token)) == "USER_INACTIVE"
    reads: readings.Readings = api.app.state.readings
    found = await reads.read(user.user_id)
    assert found is not None
    assert not found.is_active


async def test_who_gives_up_takes_the_answer_from_nobody(start_api: StartApi) -> None:
    """Two wait for one reading; one leaves."""
    api = await start_api()
    user = await make_user()
    reads: readings.Readings = api.app.state.readings
    leaves = asyncio.create_task(reads.read(user.user_id))
    stays = asyncio.create_task(reads.read(user.user_id))
    await asyncio.sleep(0)
    leaves.cancel()
    found = await stays
    assert found is not None
    assert found.balance.balance == 0
