"""What a row shows of itself: its identity in a repr, everything but secrets in a dict."""

import pytest
from fastapi.encoders import jsonable_encoder
from sqlalchemy.orm import Session

from src.common.models import ApiKey, User
from tests.models.examples import a_transaction, a_user

SECRET = "$argon2id$v=19$secret"


@pytest.fixture
def user(db: Session) -> User:
    """A user with something to hide."""
    person = a_user(password_hash=SECRET, email="ada@example.com", first_name="Ada")
    db.add(person)
    db.flush()
    return person


def test_a_repr_is_class_and_identity(user: User) -> None:
    """Neither the password hash nor personal data is in a repr, at any time of a row's life."""
    assert repr(user) == f"<User {user.user_id}>"
    assert repr(a_user(password_hash=SECRET)) == "<User transient>"


def test_a_repr_works_on_rows_that_can_not_be_loaded(db: Session, user: User) -> None:
    """A detached, expired row still has its repr."""
    written = repr(user)
    db.expire(user)
    db.expunge(user)
    assert repr(user) == written


def test_a_dict_of_a_row_has_no_secrets(user: User) -> None:
    """`dict(user)` has the user's columns, but not the password hash."""
    shown = dict(user)
    assert shown["email"] == "ada@example.com"
    assert "password_hash" not in shown
    key = ApiKey(key_hash=bytes(32), last_four="abcd", service_name="slides", scopes=["a"])
    assert dict(key) == {"last_four": "abcd", "service_name": "slides", "scopes": ["a"]}


def test_fastapi_shows_no_secrets(user: User) -> None:
    """A row returned by a route as it is, loaded relationships and all, hides the hash."""
    purchase = a_transaction(user=user)
    user_shown, purchase_shown = jsonable_encoder(user), jsonable_encoder(purchase)
    assert SECRET not in f"{user_shown} {purchase_shown}"
    assert user_shown["first_name"] == "Ada"
    assert purchase_shown["credits_added"] == 500
