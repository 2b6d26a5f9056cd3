"""`GET /user/{user_id}` and `PATCH /update_profile`."""

from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from src.common.models.user import User
from tests.api.tokens import make_token
from tests.fixtures.api import Api, error_type_of, fetch, make_user


async def test_a_user_sees_their_whole_profile_and_no_password_hash(api: Api) -> None:
    """Every column that is the person's business, by name and value."""
    user = await make_user(
        password_hash="$argon2id$secret", first_name="Ada", preferences={"company": "Analytical"}
    )
    answer = await api.get(f"/user/{user.user_id}", make_token(user.user_id))
    assert answer.status_code == 200
    shown = answer.json()
    assert shown["user_id"] == str(user.user_id)
    assert (shown["email"], shown["first_name"]) == (user.email, "Ada")
    assert (shown["credits_balance"], shown["user_type"]) == (0, "individual")
    assert shown["preferences"] == {"company": "Analytical"}
    assert "argon2id" not in answer.text
    assert "password" not in answer.text


async def test_only_what_the_body_names_changes(api: Api) -> None:
    """What is left out stays, null clears, and the answer is the new profile."""
    user = await make_user(
        first_name="Ada",
        last_name="Lovelace",
        preferences={"company": "Analytical", "marketing_consent": True},
    )
    body = {"first_name": "Augusta", "last_name": None, "avatar_url": "https://x.example/a.png"}
    answer = await api.call("PATCH", "/update_profile", make_token(user.user_id), json=body)
    assert answer.status_code == 200
    shown = answer.json()
    assert (shown["first_name"], shown["last_name"]) == ("Augusta", None)
    assert shown["profile_image_url"] == "https://x.example/a.png"
    assert shown["preferences"] == {"company": "Analytical", "marketing_consent": True}
    again = await api.get(f"/user/{user.user_id}", make_token(user.user_id))
    assert again.json() == shown


@pytest.mark.parametrize(
    ("before", "company", "after"),
    [
        (None, "Engines", {"company": "Engines"}),
        ({}, "Engines", {"company": "Engines"}),
        ({"company": "Old", "a": [1, {"b": 2}]}, "New", {"company": "New", "a": [1, {"b": 2}]}),
        ({"company": "Old", "a": 1}, None, {"a": 1}),
        (None, None, {}),
    ],
)
async def test_the_company_is_merged_into_the_preferences(
    api: Api,
    before: dict[str, Any] | None,
    company: str | None,
    after: dict[str, Any],
) -> None:
    """The other preferences stay; a merge starts from NULL as from `{}`."""
    user = await make_user(preferences=before)
    body = {"company": company}
    answer = await api.call("PATCH", "/update_profile", make_token(user.user_id), json=body)
    assert answer.json()["preferences"] == after
    assert await fetch(select(User.preferences)) == after


async def test_preferences_that_are_null_are_shown_as_none_yet(
    api: Api, async_db: AsyncSession
) -> None:
    """A row that another writer left NULL reads as `{}`, and looking at it changes nothing."""
    user = await make_user()
    await async_db.execute(text("UPDATE users SET preferences = NULL"))
    await async_db.commit()
    answer = await api.get(f"/user/{user.user_id}", make_token(user.user_id))
    assert answer.json()["preferences"] == {}
    assert await fetch(select(User.preferences)) is None


WRONG: dict[str, Any] = {
    "an unknown field": {"user_type": "admin"},
    "a field of another endpoint": {"credits_balance": 10_000},
    "an e-mail": {"email": "eve@example.com"},
    "a number for a name": {"first_name": 7},
    "a list for a name": {"first_name": ["Ada"]},
    "NUL in a name": {"first_name": "A\x00da"},
    "NUL in the company": {"company": "\x00"},
    "a name too long": {"last_name": "a" * 201},
    "a company too long": {"company": "a" * 201},
    "an URL too long": {"avatar_url": "https://x.example/" + "a" * 2_000},
    "an URL that is a script": {"avatar_url": "javascript:alert(1)"},
    "an URL of data": {"avatar_url": "data:text/html,x"},
    "an URL without a scheme": {"avatar_url": "//x.example/a.png"},
    "an URL without a host": {"avatar_url": "https://"},
    "an URL with a tab": {"avatar_url": "ht\ttps://x.example"},
    "an URL after a space": {"avatar_url": " https://x.example"},
    "an URL with NUL": {"avatar_url": "https://x.example/\x00"},
    "no URL": {"avatar_url": ""},
    "no object": ["first_name"],
    "a text": "first_name",
    "null": None,
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG.keys())
async def test_a_wrong_profile_is_refused_and_nothing_changes(api: Api, body: Any) -> None:
    """422 VALIDATION_ERROR; users change neither their role nor their balance nor their e-mail."""
    user = await make_user(first_name="Ada")
    answer = await api.call("PATCH", "/update_profile", make_token(user.user_id), json=body)
    assert (answer.status_code, error_type_of(answer)) == (422, "VALIDATION_ERROR")
    row = await fetch(select(User))
    assert (row.first_name, row.user_type, row.credits_balance) == ("Ada", "individual", 0)


async def test_no_cache_keeps_what_is_about_somebody(api: Api) -> None:
    """Profiles, sign-ins and errors are `no-store`; a balance, which has its ETag, is `private`."""
    user = await make_user()
    token = make_token(user.user_id)
    for answer in (
        await api.get(f"/user/{user.user_id}", token),
        await api.get(f"/user/{user.user_id}/transactions", token),
        await api.get(f"/user/{user.user_id}/credits/entries", token),
        await api.get(f"/user/{user.user_id}", None),
        await api.call("PATCH", "/update_profile", token, json={"first_name": "Ada"}),
        await api.sign_in(user.user_id, email=user.email),
    ):
        assert answer.headers.get_list("cache-control") == ["no-store"]
    balance = await api.get(f"/user/{user.user_id}/credits", token)
    assert balance.headers.get_list("cache-control") == ["private, no-cache"]


BROKEN: dict[str, bytes] = {
    "no JSON": b"{",
    "nothing": b"",
    "not UTF-8": b'{"first_name": "\xff"}',
    "half a character": b'{"first_name": "\\ud800"}',
    "half a character as a name": b'{"\\ud800": 1}',
    "nested too deeply": b"[" * 100_000,
    "a number too large": b'{"first_name": ' + b"9" * 5_000 + b"}",
    "not a number": b'{"first_name": NaN}',
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
async def test_a_body_that_is_no_json_is_refused(api: Api, body: bytes) -> None:
    """400 or 422 with our body, never a 500, whatever the bytes."""
    user = await make_user()
    headers = {"Content-Type": "application/json"}
    answer = await api.call(
        "PATCH", "/update_profile", make_token(user.user_id), content=body, headers=headers
    )
    expected = {400: "BAD_REQUEST", 422: "VALIDATION_ERROR"}
    assert error_type_of(answer) == expected[answer.status_code]


async def test_a_body_of_another_content_type_is_refused(api: Api) -> None:
    """Only JSON is read; a form is 422, not a guess."""
    user = await make_user()
    answer = await api.call(
        "PATCH", "/update_profile", make_token(user.user_id), data={"first_name": "Eve"}
    )
    assert (answer.status_code, error_type_of(answer)) == (422, "VALIDATION_ERROR")


@pytest.mark.parametrize("user_id", ["ada", "1", "%00", "../metrics", "' OR 1=1", "ü"])
async def test_an_id_that_is_none_is_refused(api: Api, user_id: str) -> None:
    """A path that names no UUID is 422 or 404, for whoever asks."""
    admin = await make_user(user_type="admin")
    answer = await api.get(f"/user/{user_id}", make_token(admin.user_id))
    assert (answer.status_code, error_type_of(answer)) in [
        (422, "VALIDATION_ERROR"),
        (404, "NOT_FOUND"),
    ]
