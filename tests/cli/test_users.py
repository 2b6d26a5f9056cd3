"""`flashslides user …`: what it does, prints and refuses."""

import io
import sys
import uuid

import jwt
import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from src.common.models.user import User
from tests.cli.conftest import RunCommand


def test_a_user_is_created_and_shown(flashslides: RunCommand) -> None:
    """By e-mail in any case, and by id: the same record, one JSON document each."""
    arguments = ("--first-name", "Ada", "--last-name", "Lovelace", "--json")
    created = flashslides("user", "create", "Ada@example.com", *arguments)
    assert created.exit_code == 0
    assert created.json["first_name"] == "Ada"
    assert (created.json["credits_balance"], created.json["is_active"]) == (0, True)
    for name in ("ada@EXAMPLE.com", created.json["user_id"]):
        shown = flashslides("user", "show", name, "--json")
        assert shown.json == created.json
    for_people = flashslides("user", "show", "ada@example.com")
    assert "Lovelace" in for_people.out
    assert created.json["user_id"] in for_people.out


@pytest.mark.parametrize("command", ["create", "show"])
def test_no_password_hash_is_shown(flashslides: RunCommand, command: str) -> None:
    """Neither the hash nor a word about it."""
    flashslides("user", "create", "ada@example.com")
    email = "eve@example.com" if command == "create" else "ada@example.com"
    result = flashslides("user", command, email, "--json")
    assert result.exit_code == 0
    assert "password" not in result.out
    assert "managed_externally" not in result.out


def test_an_email_that_is_taken_is_a_conflict(flashslides: RunCommand, db: Session) -> None:
    """Exit code 4, a sentence on stderr, nothing on stdout, one user."""
    flashslides("user", "create", "ada@example.com")
    result = flashslides("user", "create", "ADA@example.com", "--json")
    assert (result.exit_code, result.out) == (4, "")
    assert "EMAIL_TAKEN" in result.err
    assert db.scalar(select(func.count(User.user_id))) == 1


@pytest.mark.parametrize("email", ["", "ada", "@", "a b@c", "a\udcff@b", "a@" + "b" * 320])
def test_what_is_no_email_is_bad_input(flashslides: RunCommand, email: str) -> None:
    """Exit code 2, also for bytes that are no UTF-8."""
    for command in ("create", "token"):
        result = flashslides("user", command, email)
        assert (result.exit_code, result.out) == (2, ""), command
        assert "VALIDATION_ERROR" in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("show",),
        ("set-type", "admin"),
        ("activate",),
        ("deactivate",),
        ("erase", "--yes"),
    ],
)
@pytest.mark.parametrize("name", ["nobody@example.com", str(uuid.UUID(int=7))])
def test_nobody_is_not_found(
    flashslides: RunCommand, name: str, arguments: tuple[str, ...]
) -> None:
    """Exit code 3, for an e-mail and for an id."""
    command, *rest = arguments
    result = flashslides("user", command, name, *rest)
    assert (result.exit_code, result.out) == (3, "")
    assert "USER_NOT_FOUND" in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("user",),
        ("user", "create"),
        ("user", "create", "a@b", "--nonsense"),
        ("user", "create", "a@b", "--user-type", "king"),
        ("user", "set-type", "a@b", "king"),
        ("user", "token", "a@b", "--expires-in-minutes", "0"),
        ("user", "nonsense"),
        ("nonsense",),
    ],
)
def test_wrong_use_is_exit_code_2(flashslides: RunCommand, arguments: tuple[str, ...]) -> None:
    """The usage is explained; nothing is done."""
    result = flashslides(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.out + result.err


def test_type_and_activation_change(flashslides: RunCommand, db: Session) -> None:
    """Each command prints the user as they are now, and the row agrees."""
    flashslides("user", "create", "ada@example.com")
    assert flashslides("user", "set-type", "ada@example.com", "admin", "--json").json[
        "user_type"
    ] == ("admin")
    assert not flashslides("user", "deactivate", "ada@example.com", "--json").json["is_active"]
    row = db.scalars(select(User)).one()
    assert (row.user_type, row.is_active) == ("admin", False)
    assert flashslides("user", "activate", "ada@example.com", "--json").json["is_active"]


def test_an_erased_user_is_nobody_any_more(flashslides: RunCommand, db: Session) -> None:
    """Profile and e-mail are gone, the row stays, and it cannot be activated again."""
    arguments = ("--first-name", "Ada", "--last-name", "Lovelace", "--json")
    user_id = flashslides("user", "create", "ada@example.com", *arguments).json["user_id"]
    erased = flashslides("user", "erase", "ada@example.com", "--yes", "--json")
    assert erased.exit_code == 0
    assert "ada@" not in erased.out.lower()
    assert "Ada" not in erased.out
    assert "lovelace" not in erased.out.lower()
    assert erased.json["erased_at"]
    assert not erased.json["is_active"]
    assert db.scalars(select(User.email)).one() == f"erased+{user_id}@invalid"
    assert erased.json["credits_left"] == {"balance": 0, "held": 0, "debt": 0}
    again = flashslides("user", "erase", user_id, "--yes", "--json")
    assert again.json == erased.json
    refused = flashslides("user", "activate", user_id)
    assert (refused.exit_code, "USER_ERASED" in refused.err) == (4, True)


@pytest.mark.parametrize(("answer", "email"), [("", "ada@"), ("n\n", "ada@"), ("y\n", "erased+")])
def test_erasure_asks_first(
    flashslides: RunCommand, db: Session, monkeypatch: pytest.MonkeyPatch, answer: str, email: str
) -> None:
    """Without --yes only a yes erases; no answer and a no leave everything as it is."""
    flashslides("user", "create", "ada@example.com")
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    result = flashslides("user", "erase", "ada@example.com")
    assert result.exit_code == (1 if email == "ada@" else 0)
    assert db.scalars(select(User.email)).one().startswith(email)


def test_a_token_speaks_for_the_user(flashslides: RunCommand) -> None:
    """Stdout is the token alone: subject, e-mail, audience, expiry as asked for."""
    user = flashslides("user", "create", "ada@example.com", "--json").json
    result = flashslides("user", "token", "ADA@example.com", "--expires-in-minutes", "5")
    claims = jwt.decode(result.out.strip(), options={"verify_signature": False})
    assert (claims["sub"], claims["email"]) == (user["user_id"], "ada@example.com")
    assert claims["aud"] == "authenticated"
    assert claims["exp"] - claims["iat"] == 300
    stranger = flashslides("user", "token", "eve@example.com").out.strip()
    assert jwt.decode(stranger, options={"verify_signature": False})["sub"] != user["user_id"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("AUTH_JWT_SECRET", '{"keys": []}'), ("AUTH_JWT_JWKS_URL", "https://provider.example/jwks")],
)
def test_a_token_of_a_foreign_key_set_cannot_be_issued(
    flashslides: RunCommand, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Where the set is somebody else's, exit code 78 says so."""
    from src.common.settings import get_settings

    monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    result = flashslides("user", "token", "ada@example.com")
    assert (result.exit_code, result.out) == (78, "")
    assert name in result.err


def test_what_others_wrote_does_not_command_the_terminal(
    flashslides: RunCommand, db: Session
) -> None:
    """No escape sequence, C1 code or change of direction is printed, of a name or an error."""
    evil = "A\x1b]0;owned\x07\x9b2J\u202eb\u2028\r\n\x7f"
    user_id = flashslides("user", "create", "ada@example.com", "--json").json["user_id"]
    db.execute(update(User).values(first_name=evil, preferences={evil: evil}))
    db.commit()
    shown = flashslides("user", "show", user_id)
    refused = flashslides("user", "show", evil)
    as_json = flashslides("user", "show", user_id, "--json")
    for text in (shown.out, refused.err, as_json.out):
        left = {each for each in text if not each.isprintable()} - {"\n"}
        assert not left
    assert r"A\x1b]0;owned\x07\x9b2J\u202eb\u2028\r" in shown.out
    assert as_json.json["first_name"] == evil
