"""Chapter "JSONB Operations": updates in place and by `||`, queries over odd values."""

import uuid
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from src.common.models.user import User
from tests.document.document import run
from tests.models.examples import a_user

MERGE = text("UPDATE users SET preferences = preferences || :new_data WHERE user_id = :user_id")
ODD_VALUES: tuple[Any, ...] = ("maybe", "", " ", 17, 2.5, {"a": 1}, [], [True], None, "true false")
TRUE_VALUES: tuple[Any, ...] = (True, "TRUE", "true", "yes", "on", 1, " t ")
FALSE_VALUES: tuple[Any, ...] = (False, "False", "no", "off", 0)


def stored(db: Session, user: User) -> object:
    """The user's preferences as the database has them."""
    return db.scalar(select(User.preferences).where(User.user_id == user.user_id))


def saved(db: Session, preferences: Any) -> User:
    """A committed user with these preferences, NULL included."""
    user = a_user()
    db.add(user)
    db.flush()
    user.preferences = preferences
    db.commit()
    return user


@pytest.mark.parametrize(
    "before", [None, {}, {"company": "Old Ltd"}], ids=["NULL", "empty", "filled"]
)
def test_both_updates_of_the_document_are_saved(db: Session, before: Any) -> None:
    """The document's block, in place and then raw, runs whole, also where there was nothing."""
    user = saved(db, before)
    run("JSONB updates", db=db, user=user, user_id=user.user_id)
    db.commit()
    assert stored(db, user) == {"company": "Acme Inc"}


def test_a_change_in_place_is_saved(db: Session) -> None:
    """`user.preferences["company"] = ...; db.commit()` reaches the database."""
    user = saved(db, {"marketing_consent": True})
    user.preferences["company"] = "Acme Inc"
    db.commit()
    assert stored(db, user) == {"marketing_consent": True, "company": "Acme Inc"}


def test_a_nested_change_in_place_is_saved(db: Session) -> None:
    """A change inside the document's `notification_settings` reaches the database."""
    user = saved(db, {"notification_settings": {"email": True, "push": False}})
    user.preferences["notification_settings"]["push"] = True
    db.commit()
    assert stored(db, user) == {"notification_settings": {"email": True, "push": True}}


def test_a_raw_merge_keeps_the_other_keys(db: Session) -> None:
    """`preferences || :new_data` replaces one key and keeps the rest."""
    user = saved(db, {"company": "Old Ltd", "marketing_consent": True})
    db.execute(MERGE, {"new_data": '{"company": "Acme Inc"}', "user_id": user.user_id})
    assert stored(db, user) == {"company": "Acme Inc", "marketing_consent": True}


def test_a_raw_merge_into_a_new_user_s_preferences_works(db: Session) -> None:
    """Preferences nobody ever set are `{}`, so that merging into them gives what was merged."""
    user_id = uuid.uuid4()
    insert = text("INSERT INTO users (user_id, email, password_hash) VALUES (:user_id, 'a@b', 'x')")
    db.execute(insert, {"user_id": user_id})
    db.execute(MERGE, {"new_data": '{"company": "Acme Inc"}', "user_id": user_id})
    assert db.get_one(User, user_id).preferences == {"company": "Acme Inc"}


def test_a_raw_merge_into_null_stays_null(db: Session) -> None:
    """NULL || x is NULL in PostgreSQL: why our own merge starts from `{}`."""
    user = saved(db, None)
    db.execute(MERGE, {"new_data": '{"company": "Acme Inc"}', "user_id": user.user_id})
    assert stored(db, user) is None


def test_both_queries_of_the_document_find_their_users(db: Session) -> None:
    """The document's block finds who consented; its second query, who works at Acme."""
    saved(db, {"marketing_consent": True})
    at_acme = saved(db, {"company": "Acme Inc", "marketing_consent": False})
    saved(db, {"company": "acme inc"})
    assert run("JSONB queries", db=db)["users"] == [at_acme]


def consenting(db: Session) -> list[uuid.UUID]:
    """Whom the document's first query finds, its second one answered under another name."""
    filling = {"company\nusers = ": "company\nat_acme = "}
    return [user.user_id for user in run("JSONB queries", filling=filling, db=db)["users"]]


@pytest.mark.parametrize("odd", ODD_VALUES, ids=repr)
def test_an_odd_value_of_another_user_does_not_fail_the_query(db: Session, odd: Any) -> None:
    """Whatever one user has under `marketing_consent`, the query finds the others."""
    saved(db, {"marketing_consent": odd})
    saved(db, None)
    willing = saved(db, {"marketing_consent": True})
    assert consenting(db) == [willing.user_id]


@pytest.mark.parametrize("value", TRUE_VALUES, ids=repr)
def test_what_postgresql_reads_as_true_is_consent(db: Session, value: Any) -> None:
    """The forgiving cast reads every boolean that the plain cast reads."""
    willing = saved(db, {"marketing_consent": value})
    assert consenting(db) == [willing.user_id]


@pytest.mark.parametrize("value", FALSE_VALUES, ids=repr)
def test_what_postgresql_reads_as_false_is_no_consent(db: Session, value: Any) -> None:
    """A refusal is no consent, however it is written."""
    saved(db, {"marketing_consent": value})
    assert consenting(db) == []
