"""Sign-ins of those who are known, noted together: what becomes of the row is the same."""

import asyncio
import uuid
from typing import Any

import pytest
from sqlalchemy import select, update

from src.common.accounts.known_sign_ins import KnownSignIns, SigningIn
from src.common.async_database import AsyncSessionLocal, run_in_async_database_transaction
from src.common.models.user import User
from tests.fixtures.api import StartApi, error_type_of, fetch, make_user

FOR_THEIR_TIME = {"last_login_at", "updated_at"}


async def row_of(user_id: uuid.UUID) -> dict[str, Any]:
    """All columns of the user."""
    columns = User.__table__.c
    statement = select(*columns).where(columns.user_id == user_id)
    found = await run_in_async_database_transaction(
        lambda session: session.execute(statement).mappings().one()
    )
    return dict(found)


async def test_a_known_user_is_noted_as_by_a_session(start_api: StartApi) -> None:
    """The same columns change, the same answer is given; nothing else of the row does."""
    api = await start_api()
    user = await make_user(email="ada@example.com")
    before = await row_of(user.user_id)
    known, api.app.state.known_sign_ins = api.app.state.known_sign_ins, None
    by_session = await api.sign_in(user.user_id, email="ada@example.com")
    alone = await row_of(user.user_id)
    api.app.state.known_sign_ins = known
    together = await api.sign_in(user.user_id, email="ada@example.com")
    after = await row_of(user.user_id)
    assert by_session.content == together.content
    assert changed(before, alone) == changed(alone, after) == FOR_THEIR_TIME
    for name in FOR_THEIR_TIME:
        assert after[name] > alone[name]


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """The columns that differ."""
    return {name for name in before if before[name] != after[name]}


async def test_what_else_a_sign_in_would_do_is_left_to_a_session(start_api: StartApi) -> None:
    """Others' e-mails, other cases, strangers, the deactivated: nothing is written, none is known.

    All of them are asked for at once with one who is known; a pair is a user and an e-mail.
    """
    api = await start_api()
    ada = await make_user(email="ada@example.com")
    eve = await make_user(email="eve@example.com")
    gone = await make_user(email="gone@example.com", is_active=False)
    asked = [
        SigningIn(ada.user_id, "eve@example.com"),
        SigningIn(eve.user_id, "ada@example.com"),
        SigningIn(eve.user_id, "EVE@example.com"),
        SigningIn(gone.user_id, "gone@example.com"),
        SigningIn(uuid.uuid4(), "new@example.com"),
    ]
    known: KnownSignIns = api.app.state.known_sign_ins
    assert await asyncio.gather(*map(known.read, asked)) == [None] * len(asked)
    last_logins = select(User.last_login_at).where(User.last_login_at.is_not(None))
    assert (
        await run_in_async_database_transaction(lambda session: session.execute(last_logins).all())
        == []
    )
    answer = await api.sign_in(gone.user_id, email="gone@example.com")
    assert error_type_of(answer) == "USER_INACTIVE"
    answer = await api.sign_in(ada.user_id, email="eve@example.com")
    assert error_type_of(answer) == "EMAIL_TAKEN"


async def test_a_reserved_address_is_refused_also_of_who_has_it(start_api: StartApi) -> None:
    """As by a session: the address is looked at first."""
    api = await start_api()
    user = await make_user(email="erased+x@invalid")
    answer = await api.sign_in(user.user_id, email="erased+x@invalid")
    assert (answer.status_code, error_type_of(answer)) == (422, "VALIDATION_ERROR")
    assert await fetch(select(User.last_login_at)) is None


async def test_who_is_locked_by_somebody_holds_up_nobody_else(start_api: StartApi) -> None:
    """The locked user waits for the lock, alone, and signs in after it."""
    api = await start_api()
    locked, free = await make_user(), await make_user()
    async with AsyncSessionLocal.begin() as holder:
        await holder.execute(select(User).where(User.user_id == locked.user_id).with_for_update())
        waits = asyncio.create_task(api.sign_in(locked.user_id, email=locked.email))
        answer = await asyncio.wait_for(api.sign_in(free.user_id, email=free.email), 30)
        assert answer.status_code == 200
        assert not waits.done()
    assert (await waits).json()["status"] == "authenticated"


async def test_many_at_once_share_statements_and_are_all_noted(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each user several times at once: all are answered, and nobody is forgotten."""
    api = await start_api()
    users = [await make_user() for _ in range(12)]
    statements, found = 0, KnownSignIns.found

    async def counted(self: KnownSignIns, *arguments: Any) -> Any:
        nonlocal statements
        statements += 1
        return await found(self, *arguments)

    monkeypatch.setattr(KnownSignIns, "found", counted)
    answers = await asyncio.gather(
        *(api.sign_in(user.user_id, email=user.email) for user in users * 4)
    )
    assert {answer.json()["status"] for answer in answers} == {"authenticated"}
    assert 0 < statements < 48
    unseen = select(User.user_id).where(User.last_login_at.is_(None))
    assert (
        await run_in_async_database_transaction(lambda session: session.execute(unseen).all()) == []
    )


async def test_a_sign_in_that_cannot_be_noted_together_is_done_alone(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost connection: a session signs in."""
    api = await start_api()
    user = await make_user()

    async def fail(*_arguments: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(KnownSignIns, "found", fail)
    assert (await api.sign_in(user.user_id, email=user.email)).json()["status"] == "authenticated"
    await run_in_async_database_transaction(
        lambda session: session.execute(update(User).values(is_active=False))
    )
    answer = await api.sign_in(user.user_id, email=user.email)
    assert error_type_of(answer) == "USER_INACTIVE"
