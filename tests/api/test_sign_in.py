"""`POST /authenticate-jwt`: the user at first sight, a changed e-mail, what is odd in a token."""

import asyncio
import uuid
from typing import Any

import pytest
from dirty_equals import IsNow
from sqlalchemy import func, select

from src.common.models.user import User
from tests.api.tokens import make_token
from tests.fixtures.api import Api, StartApi, error_type_of, fetch, make_user


async def test_the_first_sight_makes_the_user_and_the_second_finds_them(api: Api) -> None:
    """The id is the token's `sub`; the second answer says `authenticated`."""
    user_id = uuid.uuid4()
    first, second = await api.sign_in(user_id), await api.sign_in(user_id)
    expected = {"internal_id": str(user_id), "status": "created", "is_new_user": True}
    assert first.json() == expected
    assert second.json() == {**expected, "status": "authenticated", "is_new_user": False}
    user = await fetch(select(User))
    assert user.password_hash == "managed_externally"
    assert user.last_login_at == IsNow(tz="UTC", delta=60)


async def test_the_profile_starts_from_the_tokens_metadata(api: Api) -> None:
    """Name and consent are taken from `user_metadata`, at first sight only."""
    user_id = uuid.uuid4()
    metadata = {"full_name": " Ada  King Lovelace ", "marketing_consent": True}
    await api.sign_in(user_id, email="ada@example.com", user_metadata=metadata)
    await api.sign_in(user_id, email="ada@example.com", user_metadata={"full_name": "Eve"})
    user = await fetch(select(User))
    assert (user.first_name, user.last_name) == ("Ada", "King Lovelace")
    assert user.preferences == {"marketing_consent": True}
    assert user.email == "ada@example.com"


ODD_METADATA: dict[str, Any] = {
    "no object": "Ada",
    "null": None,
    "a name that is a list": {"full_name": ["Ada"]},
    "a consent that is text": {"marketing_consent": "yes"},
    "a name with NUL": {"full_name": "A\x00da"},
    "a name with half a character": {"full_name": "A\ud800da"},
    "a name too long": {"full_name": "A" * 100_000},
    "a name of spaces": {"full_name": "   "},
}


@pytest.mark.parametrize("metadata", ODD_METADATA.values(), ids=ODD_METADATA.keys())
async def test_odd_metadata_is_no_reason_to_refuse(api: Api, metadata: object) -> None:
    """People write their own metadata at Supabase: whatever is there, they can sign in."""
    answer = await api.sign_in(user_metadata=metadata)
    assert answer.status_code == 200
    assert "marketing_consent" not in (await fetch(select(User.preferences)) or {})


NO_EMAILS = [None, 7, "", "ada", "@", "a@", "@b", "a b@c", "a@b@c", "a\x00@b", "a\ud800@b"]


@pytest.mark.parametrize("email", [*NO_EMAILS, "a@" + "b" * 320])
async def test_a_token_without_a_usable_email_is_422(api: Api, email: Any) -> None:
    """An e-mail is required; what PostgreSQL or people could not use is refused, not stored."""
    answer = await api.sign_in(email=email)
    assert (answer.status_code, error_type_of(answer)) == (422, "VALIDATION_ERROR")
    assert await fetch(select(func.count(User.user_id))) == 0


async def test_a_token_that_leaves_the_email_out_is_422(api: Api) -> None:
    """Phone-only accounts carry none."""
    answer = await api.sign_in(without=["email"])
    assert (answer.status_code, error_type_of(answer)) == (422, "VALIDATION_ERROR")


async def test_accounts_are_never_linked_by_email(api: Api) -> None:
    """Another `sub` with a known e-mail gets EMAIL_TAKEN, not that account, in any case."""
    owner = await make_user(email="Ada@Example.com")
    answer = await api.sign_in(email="ada@example.COM")
    assert (answer.status_code, error_type_of(answer)) == (409, "EMAIL_TAKEN")
    assert await fetch(select(User.user_id)) == owner.user_id
    assert "ada@" not in answer.text.lower()


async def test_a_changed_email_updates_the_row(api: Api) -> None:
    """The identity provider owns the e-mail: the next sign-in brings the new one."""
    user = await make_user(email="old@example.com")
    assert (await api.sign_in(user.user_id, email="new@example.com")).status_code == 200
    assert await fetch(select(User.email)) == "new@example.com"


async def test_an_email_may_change_its_case(api: Api) -> None:
    """The user's own address in another case is no conflict with itself."""
    user = await make_user(email="ada@example.com")
    assert (await api.sign_in(user.user_id, email="Ada@example.com")).status_code == 200
    assert await fetch(select(User.email)) == "Ada@example.com"


async def test_a_changed_email_of_somebody_else_is_refused(api: Api) -> None:
    """EMAIL_TAKEN, and neither row changes."""
    await make_user(email="taken@example.com")
    user = await make_user(email="own@example.com")
    answer = await api.sign_in(user.user_id, email="Taken@example.com")
    assert (answer.status_code, error_type_of(answer)) == (409, "EMAIL_TAKEN")
    mine = select(User.email).where(User.user_id == user.user_id)
    assert await fetch(mine) == "own@example.com"


async def test_first_sights_at_once_make_one_user(start_api: StartApi) -> None:
    """Of many sign-ins of one new person at once exactly one creates, and all succeed."""
    api = await start_api()
    for _round in range(10):
        user_id = uuid.uuid4()
        token = make_token(user_id, email=f"{user_id}@example.com")
        answers = await asyncio.gather(
            *(api.call("POST", "/authenticate-jwt", token) for _ in range(16))
        )
        assert {answer.status_code for answer in answers} == {200}
        assert sorted(answer.json()["is_new_user"] for answer in answers)[-2:] == [False, True]
    assert await fetch(select(func.count(User.user_id))) == 10


async def test_of_two_people_with_one_email_at_once_one_gets_it(start_api: StartApi) -> None:
    """EMAIL_TAKEN for all but one of many new accounts with the same address, in any case."""
    api = await start_api()
    answers = await asyncio.gather(
        *(api.sign_in(email=email) for email in ["ada@example.com", "ADA@example.com"] * 8)
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 15
    assert await fetch(select(func.count(User.user_id))) == 1


async def test_of_two_users_who_change_to_one_email_at_once_one_gets_it(
    start_api: StartApi,
) -> None:
    """The unique index decides a race of changes as well."""
    api = await start_api()
    users = [await make_user() for _ in range(8)]
    answers = await asyncio.gather(
        *(api.sign_in(user.user_id, email="prize@example.com") for user in users)
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    holders = select(func.count(User.user_id)).where(User.email == "prize@example.com")
    assert await fetch(holders) == 1
