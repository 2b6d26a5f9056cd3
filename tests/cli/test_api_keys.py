"""`flashslides api-key …`: printed once, stored hashed, revocable."""

import datetime as dt
import uuid

import pytest
from dirty_equals import IsStr
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from src.common.accounts.api_keys import find_valid_api_key
from src.common.models.api_key import ApiKey
from tests.cli.conftest import RunCommand


def test_a_key_is_printed_once_as_json(flashslides: RunCommand, db: Session) -> None:
    """Exactly `key_id`, `key`, `scopes`, `expires_at`; the key works."""
    result = flashslides("api-key", "create", "--scopes", "users:read,credits:spend", "--json")
    assert result.exit_code == 0
    record = db.scalars(select(ApiKey)).one()
    assert result.json == {
        "key_id": str(record.key_id),
        "key": IsStr(regex=r"fsk_[A-Za-z0-9_-]{43}"),
        "scopes": ["credits:spend", "users:read"],
        "expires_at": None,
    }
    assert find_valid_api_key(db, result.json["key"]) is record
    assert result.json["key"] not in result.err


def test_the_list_never_shows_a_key(flashslides: RunCommand) -> None:
    """Ids, last four characters, scopes, dates; newest first."""
    keys = [
        flashslides("api-key", "create", "--scopes", "users:read", "--service", name, "--json").json
        for name in ("slides", "billing")
    ]
    listed = flashslides("api-key", "list", "--json")
    assert {row["service"]: row["last_four"] for row in listed.json} == {
        "slides": keys[0]["key"][-4:],
        "billing": keys[1]["key"][-4:],
    }
    for_people = flashslides("api-key", "list").out
    for key in keys:
        assert key["key"] not in listed.out + for_people
        assert key["key_id"] in for_people


def test_instants_are_iso_8601(flashslides: RunCommand) -> None:
    """Programs read dates in one form, whatever the command."""
    arguments = ("--scopes", "users:read", "--expires-in-days", "30", "--json")
    created = flashslides("api-key", "create", *arguments).json
    (listed,) = flashslides("api-key", "list", "--json").json
    assert created["expires_at"] == listed["expires_at"]
    expiry = dt.datetime.fromisoformat(created["expires_at"])
    assert expiry - dt.datetime.now(dt.UTC) == pytest.approx(
        dt.timedelta(days=30), abs=dt.timedelta(minutes=5)
    )
    assert "T" in listed["created_at"]


def test_a_revoked_key_is_worth_nothing(flashslides: RunCommand, db: Session) -> None:
    """Revoking is at once, and doing it again changes nothing."""
    created = flashslides("api-key", "create", "--scopes", "users:read", "--json").json
    assert flashslides("api-key", "revoke", created["key_id"]).exit_code == 0
    assert find_valid_api_key(db, created["key"]) is None
    (once,) = flashslides("api-key", "list", "--json").json
    assert once["revoked_at"]
    assert flashslides("api-key", "revoke", created["key_id"]).exit_code == 0
    assert flashslides("api-key", "list", "--json").json == [once]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--scopes", ""),
        ("--scopes", " , "),
        ("--scopes", "users:write"),
        ("--scopes", "users:read,nonsense"),
        ("--scopes", "USERS:READ"),
        ("--scopes", "users:read", "--service", ""),
        ("--scopes", "users:read", "--service", "\udcff"),
        ("--scopes", "users:read", "--expires-in-days", "0"),
        ("--scopes", "users:read", "--expires-in-days", "999999999"),
        (),
    ],
)
def test_a_wrong_key_is_bad_input(
    flashslides: RunCommand, db: Session, arguments: tuple[str, ...]
) -> None:
    """Exit code 2, nothing on stdout, no key."""
    result = flashslides("api-key", "create", *arguments, "--json")
    assert (result.exit_code, result.out) == (2, "")
    assert db.scalar(select(func.count(ApiKey.key_id))) == 0


def test_no_keys_is_an_empty_list(flashslides: RunCommand) -> None:
    """A sentence for people, `[]` for programs."""
    assert flashslides("api-key", "list", "--json").json == []
    assert "no API keys" in flashslides("api-key", "list").out


def test_a_key_that_does_not_exist_is_not_found(flashslides: RunCommand) -> None:
    """Exit code 3; what is no id is wrong use."""
    result = flashslides("api-key", "revoke", str(uuid.UUID(int=7)))
    assert (result.exit_code, "API_KEY_NOT_FOUND" in result.err) == (3, True)
    assert flashslides("api-key", "revoke", "seven").exit_code == 2
