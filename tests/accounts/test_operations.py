"""Operations on users: what the commands and routes do not show."""

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from src.common.accounts import operations, queries, rules
from src.common.accounts.operations import Identity
from src.common.exceptions import Conflict, Forbidden, NotFound
from src.common.models.transaction import Transaction
from src.common.models.user import User
from tests.models.examples import a_transaction, a_user

PERSONAL: dict[str, Any] = {
    "email": "ada@example.com",
    "password_hash": "$argon2id$x",
    "first_name": "Ada",
    "last_name": "Lovelace",
    "profile_image_url": "https://x.example/ada.png",
    "phone": "+44 20 7946 0000",
    "stripe_customer_id": "cus_ada",
    "preferences": {"company": "Analytical Engines", "nested": {"name": "Ada"}},
    "timezone": "Europe/London",
    "language_preference": "en-GB",
    "last_login_at": dt.datetime(2026, 11, 22, tzinfo=dt.UTC),
}


def add_user(db: Session, **columns: Any) -> User:
    """A committed user."""
    user = a_user(**columns)
    db.add(user)
    db.commit()
    return user


def test_erasure_forgets_the_person_and_keeps_the_account(db: Session) -> None:
    """No column holds what the person was; balance, role and purchases are as before."""
    user = add_user(db, **PERSONAL, user_type="member")
    db.add(a_transaction(user_id=user.user_id, stripe_session_id="cs_kept"))
    db.commit()
    erased = operations.erase_user(db, user.user_id)
    db.commit()
    row = db.execute(text("SELECT to_jsonb(users)::text FROM users")).scalar_one()
    for name, value in PERSONAL.items():
        assert str(value) not in row, name
    assert "Ada" not in row
    assert "Analytical" not in row
    assert erased.email == f"erased+{user.user_id}@invalid"
    assert (erased.is_active, erased.preferences, erased.user_type) == (False, {}, "member")
    assert erased.erased_at is not None
    assert db.scalars(select(Transaction.stripe_session_id)).one() == "cs_kept"


def test_every_personal_column_is_erased_or_known_not_to_be_personal() -> None:
    """A new column of `users` must be put on one side or the other."""
    kept = {"user_id", "user_type", "is_active", "created_at", "updated_at", "erased_at"}
    kept |= {"credits_balance", "credits_version"}
    assert {attribute.key for attribute in User.__mapper__.column_attrs} - kept == set(PERSONAL)


def test_an_erased_email_is_free_again(db: Session) -> None:
    """Somebody else may have the address now, the erased account keeps its own row."""
    user = add_user(db, email="ada@example.com")
    operations.erase_user(db, user.user_id)
    again = operations.sign_in(db, Identity(uuid.uuid4(), "ada@example.com"))
    assert again.is_new
    assert again.user.user_id != user.user_id


def test_erasing_twice_changes_nothing(db: Session) -> None:
    """The instant of the first erasure stays."""
    user = add_user(db)
    first = operations.erase_user(db, user.user_id).erased_at
    assert operations.erase_user(db, user.user_id).erased_at == first


@pytest.mark.parametrize(
    ("current", "changes", "merged"),
    [
        (None, {}, {}),
        (None, {"a": 1}, {"a": 1}),
        ({}, {"a": None}, {}),
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"y": 2}}),
        ({"a": 1, "b": False}, {"a": None}, {"b": False}),
    ],
)
def test_preferences_are_merged_key_by_key(
    current: dict[str, Any] | None, changes: dict[str, Any], merged: dict[str, Any]
) -> None:
    """None removes a key, false is a value, NULL starts from nothing, the input stays as it is."""
    before = None if current is None else dict(current)
    assert rules.merged_preferences(current, changes) == merged
    assert current == before


@pytest.mark.parametrize(
    ("full_name", "names"),
    [
        (None, (None, None)),
        ("", (None, None)),
        ("  \t\n", (None, None)),
        ("Ada", ("Ada", None)),
        ("Ada Lovelace", ("Ada", "Lovelace")),
        (" Ada  King \u3000 Lovelace ", ("Ada", "King Lovelace")),
    ],
)
def test_a_full_name_is_split_at_its_first_space(
    full_name: str | None, names: tuple[str | None, str | None]
) -> None:
    """The first word, and all the others."""
    assert rules.split_full_name(full_name) == names


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("Ada", "Ada"),
        ("A\x00da", "Ada"),
        ("A\ud800da", "Ada"),
        ("\udcff", ""),
        ("Adä 🎉", "Adä 🎉"),
    ],
)
def test_what_postgresql_cannot_store_is_left_out(db: Session, given: str, stored: str) -> None:
    """NUL and lone surrogates go, everything else stays; PostgreSQL takes the rest."""
    assert rules.storable(given) == stored
    assert db.scalar(select(text("CAST(:it AS text)")).params(it=stored)) == stored


def test_a_taken_email_leaves_the_callers_work_alone(db: Session) -> None:
    """The conflict undoes the one insert, not what the caller did before in the transaction."""
    add_user(db, email="ada@example.com")
    other = add_user(db)
    other.first_name = "Grace"
    with pytest.raises(Conflict, match="e-mail"):
        operations.create_user(db, email="ADA@example.com")
    db.commit()
    assert db.scalars(select(User.first_name).where(User.user_id == other.user_id)).one() == "Grace"


def test_operations_never_commit(db: Session) -> None:
    """The database transaction is the caller's: each operation can be rolled back."""
    user_id = add_user(db).user_id
    operations.create_user(db, email="ada@example.com")
    operations.sign_in(db, Identity(user_id, "new@example.com"))
    operations.update_profile(db, user_id, {"first_name": "Ada"})
    operations.set_user_type(db, user_id, "admin")
    operations.set_active(db, user_id, is_active=False)
    operations.erase_user(db, user_id)
    db.rollback()
    row = db.scalars(select(User)).one()
    assert (row.first_name, row.user_type, row.is_active) == (None, "individual", True)


def test_an_update_reads_the_row_as_it_is_under_the_lock(db: Session) -> None:
    """A stale object in the caller's session does not overwrite what another writer changed."""
    user = add_user(db, preferences={"company": "Old"})
    db.connection().execute(
        text("""UPDATE users SET preferences = '{"company": "Old", "theme": "dark"}'""")
    )
    updated = operations.update_profile(db, user.user_id, {"company": "New"})
    assert updated.preferences == {"company": "New", "theme": "dark"}


NOBODY = uuid.UUID(int=7)
CHANGES_OF_NOBODY: list[Callable[[Session], object]] = [
    lambda db: queries.get_user(db, NOBODY),
    lambda db: operations.update_profile(db, NOBODY, {}),
    lambda db: operations.set_user_type(db, NOBODY, "admin"),
    lambda db: operations.set_active(db, NOBODY, is_active=True),
    lambda db: operations.erase_user(db, NOBODY),
]


def test_nobody_and_inactive_are_told_apart(db: Session) -> None:
    """USER_NOT_FOUND and USER_INACTIVE, from each operation that changes a user."""
    for operation in CHANGES_OF_NOBODY:
        with pytest.raises(NotFound):
            operation(db)
    user = add_user(db, is_active=False)
    with pytest.raises(Forbidden):
        operations.update_profile(db, user.user_id, {})
    with pytest.raises(Forbidden):
        operations.sign_in(db, Identity(user.user_id, user.email))
