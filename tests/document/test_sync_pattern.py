"""Chapter "Synchronous Database Access": the pattern, the route, idempotency, relationships."""

import uuid
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from src.common.database import SessionLocal, get_db
from src.common.exceptions import ErrorKind, ExceptionWithErrorType
from src.common.models.transaction import UQ_TRANSACTIONS_STRIPE_SESSION_ID, Transaction
from src.common.models.user import User
from src.common.postgres.errors import violated_constraint
from src.local_postgres import ConnectionParameters
from tests.document.document import returned, run
from tests.models.examples import a_transaction, a_user

OTHER_FIELDS = {"# ... other fields": "**other_fields,"}


@pytest.fixture
def user(db: Session) -> User:
    """A committed user."""
    person = a_user(first_name="Ada", password_hash="$argon2id$secret")
    db.add(person)
    db.commit()
    return person


def test_a_profile_is_found_by_its_id(db: Session, user: User) -> None:
    """The document's get_user_profile returns the user."""
    get_user_profile = run("get_user_profile", UUID=uuid.UUID)["get_user_profile"]
    assert get_user_profile(user.user_id, db) is user


def test_a_missing_profile_is_user_not_found(db: Session) -> None:
    """The document's get_user_profile raises what it says, and the edges know what it means."""
    get_user_profile = run("get_user_profile", UUID=uuid.UUID)["get_user_profile"]
    with pytest.raises(ExceptionWithErrorType, match="User not found") as caught:
        get_user_profile(uuid.uuid4(), db)
    assert (caught.value.error_type, caught.value.kind) == ("USER_NOT_FOUND", ErrorKind.NOT_FOUND)


def test_the_route_answers_the_user_without_the_password_hash(user: User) -> None:
    """The document's route returns the row itself; its password hash stays behind all the same."""
    app = FastAPI()
    app.include_router(run("GET /user/{user_id}", UUID=uuid.UUID)["router"])
    with TestClient(app) as client:
        answer = client.get(f"/user/{user.user_id}")
    assert (answer.status_code, answer.json()["first_name"]) == (200, "Ada")
    assert answer.json()["user_id"] == str(user.user_id)
    assert "password_hash" not in answer.text
    assert "argon2id" not in answer.text


def test_the_route_answers_null_for_nobody(db: Session) -> None:
    """The document's route returns what `first()` returns, also where that is None."""
    assert db.is_active
    app = FastAPI()
    app.include_router(run("GET /user/{user_id}", UUID=uuid.UUID)["router"])
    with TestClient(app) as client:
        answer = client.get(f"/user/{uuid.uuid4()}")
    assert (answer.status_code, answer.json()) == (200, None)


def test_a_session_of_get_db_is_closed_after_the_request(user: User) -> None:
    """What a request did not commit is rolled back when its session closes."""
    request = get_db()
    session = next(request)
    session.get_one(User, user.user_id).first_name = "Grace"
    session.flush()
    request.close()
    assert not session.in_transaction()
    with SessionLocal() as fresh:
        assert fresh.get_one(User, user.user_id).first_name == "Ada"


def test_a_second_purchase_with_the_same_session_is_already_processed(
    db: Session, user: User
) -> None:
    """The document's idempotency pattern stores the first and answers the second."""
    fields = {"user_id": user.user_id, "amount_paid_cents": 500, "credits_added": 500}
    given: dict[str, Any] = {"db": db, "session_id": "cs_1", "other_fields": fields}
    first = returned("idempotency", filling=OTHER_FIELDS, **given)
    second = returned("idempotency", filling=OTHER_FIELDS, **given)
    assert (first, second) == (None, {"status": "already_processed"})
    [stored] = db.scalars(select(Transaction)).all()
    assert stored.stripe_session_id == "cs_1"


def test_a_duplicate_purchase_names_its_constraint(db: Session, user: User) -> None:
    """An IntegrityError says which constraint it is about, so that no other passes for it."""
    db.add(a_transaction(user=user, stripe_session_id="cs_1"))
    db.commit()
    db.add(a_transaction(user=user, stripe_session_id="cs_1"))
    with pytest.raises(IntegrityError) as caught:
        db.commit()
    assert violated_constraint(caught.value) == UQ_TRANSACTIONS_STRIPE_SESSION_ID
    db.rollback()
    db.add(a_transaction(user_id=uuid.uuid4()))
    with pytest.raises(IntegrityError) as caught:
        db.commit()
    assert violated_constraint(caught.value) == "fk_transactions_user_id_users"
    db.rollback()


def test_the_relationship_loads_both_ways(db: Session, user: User) -> None:
    """`user.transactions` and `transaction.user` load as with the document's backref."""
    db.add_all([a_transaction(user=user), a_transaction(user_id=user.user_id)])
    db.commit()
    with SessionLocal() as fresh:
        loaded = fresh.get_one(User, user.user_id)
        assert len(loaded.transactions) == 2
        assert {transaction.user for transaction in loaded.transactions} == {loaded}


def test_the_relationship_keeps_both_sides_in_step(db: Session, user: User) -> None:
    """`Transaction(user=user)` appears in `user.transactions` before anything is written."""
    with db.no_autoflush:
        purchase = a_transaction(user=user)
        assert user.transactions == [purchase]
    db.add(purchase)
    db.commit()
    assert purchase.user_id == user.user_id


def test_all_steps_or_none(fresh_database: ConnectionParameters) -> None:
    """One commit for several steps: where the second fails, the first has not happened."""
    assert fresh_database
    with SessionLocal.begin() as db:
        person = a_user()
        db.add(person)
    with SessionLocal() as db:
        db.get_one(User, person.user_id).credits_balance += 100
        db.add(a_transaction(user_id=uuid.uuid4()))
        with pytest.raises(IntegrityError):
            db.commit()
    with SessionLocal() as db:
        assert db.get_one(User, person.user_id).credits_balance == 0


def test_checking_for_none_raises_before_anything_is_touched(db: Session, user: User) -> None:
    """The document's "check for None": nobody is USER_NOT_FOUND, somebody gets the credits."""
    filling = {"filter(...)": "filter(User.user_id == user_id)"}
    run("check for None", filling=filling, db=db, user_id=user.user_id)
    assert user.credits_balance == 100
    with pytest.raises(ExceptionWithErrorType, match="User not found"):
        run("check for None", filling=filling, db=db, user_id=uuid.uuid4())


def test_the_session_is_closed_by_its_context_manager(user: User) -> None:
    """The document's `with SessionLocal() as db:`, its comment replaced by work, leaves nothing."""
    names = run(
        "closed sessions",
        filling={
            "    # Auto-closed after request": "    return db",
            "    # Auto-closed on exit": "    found = db.get(User, user_id)",
        },
        SessionLocal=SessionLocal,
        user_id=user.user_id,
    )
    assert names["found"].email == user.email
    assert not names["db"].in_transaction()
    assert names["endpoint"](names["db"]) is names["db"]
