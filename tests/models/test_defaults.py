"""What nobody fills in: the same from SQLAlchemy and from plain SQL, and loaded after a flush."""

import datetime as dt
import uuid
from typing import Any

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from src.common.models import (
    ApiKey,
    Base,
    StripeEvent,
    Transaction,
    UnmatchedPayment,
    User,
)
from tests.models.examples import a_transaction, a_user

NOW_COLUMNS = {"created_at", "received_at"}
DEFAULTS: dict[str, object] = {
    "credits_balance": 0,
    "credits_version": 0,
    "preferences": {},
    "user_type": "individual",
    "is_active": True,
}
NOTHING = [
    "first_name",
    "last_name",
    "profile_image_url",
    "phone",
    "stripe_customer_id",
    "timezone",
    "language_preference",
    "last_login_at",
    "updated_at",
    "erased_at",
]


def an_event() -> StripeEvent:
    """A new event with nothing but what Stripe says."""
    return StripeEvent(
        livemode=False,
        event_id="evt_1",
        type="checkout.session.completed",
        stripe_created_at=dt.datetime.now(dt.UTC),
    )


def an_unmatched_payment() -> UnmatchedPayment:
    """A new unmatched payment with nothing but its reason."""
    return UnmatchedPayment(
        livemode=False,
        stripe_object_id="cs_1",
        event_id="evt_1",
        reason="USER_NOT_FOUND",
        explanation="Nobody has this id.",
    )


def an_api_key() -> ApiKey:
    """A new key with nothing but what identifies it."""
    return ApiKey(key_hash=bytes(32), last_four="abcd", service_name="slides", scopes=["a"])


ROWS = [a_user, lambda: a_transaction(user=a_user()), an_event, an_unmatched_payment, an_api_key]
EVERY_MODEL = pytest.mark.parametrize(
    "make_row", ROWS, ids=["User", "Transaction", "StripeEvent", "UnmatchedPayment", "ApiKey"]
)


def columns_of(row: Base) -> dict[str, Any]:
    """Every column of a row that has left its session: one that is not loaded is an error."""
    assert inspect(row).detached
    return {name: getattr(row, name) for name in inspect(row).mapper.columns.keys()}  # noqa: SIM118


def test_a_row_of_plain_sql_has_every_default(db: Session) -> None:
    """An INSERT that names only e-mail and password hash makes a whole user."""
    statement = "INSERT INTO users (email, password_hash) VALUES ('a@b', 'x') RETURNING user_id"
    user = db.get_one(User, db.scalar(text(statement)))
    assert {name: getattr(user, name) for name in DEFAULTS} == DEFAULTS
    assert {getattr(user, name) for name in NOTHING} == {None}
    assert user.created_at == db.scalar(text("SELECT now()"))


def test_a_new_user_has_every_default(db: Session) -> None:
    """A User with only e-mail and password hash has the same defaults as a row of plain SQL."""
    user = a_user()
    db.add(user)
    db.flush()
    assert {name: getattr(user, name) for name in DEFAULTS} == DEFAULTS
    assert {getattr(user, name) for name in NOTHING} == {None}
    assert user.created_at == db.scalar(text("SELECT now()"))


def test_a_transaction_of_plain_sql_has_every_default(db: Session) -> None:
    """An INSERT that names only the document's own columns makes a whole purchase."""
    user = a_user()
    db.add(user)
    db.flush()
    statement = text(
        "INSERT INTO transactions (user_id, stripe_session_id, amount_paid_cents, credits_added)"
        " VALUES (:user_id, 'cs_1', 500, 500) RETURNING transaction_id"
    )
    purchase = db.get_one(Transaction, db.scalar(statement, {"user_id": user.user_id}))
    assert isinstance(purchase.transaction_id, uuid.UUID)
    assert (purchase.currency, purchase.livemode, purchase.payment_intent_id) == ("usd", None, None)
    assert (purchase.refunded_cents, purchase.disputed_cents) == (0, 0)
    assert purchase.created_at == db.scalar(text("SELECT now()"))


@EVERY_MODEL
def test_nothing_is_left_to_fetch_after_a_flush(db: Session, make_row: Any) -> None:
    """Values the database made come back with the INSERT."""
    row = make_row()
    db.add(row)
    db.flush()
    db.expunge(row)
    assert NOW_COLUMNS & {name for name, value in columns_of(row).items() if value is not None}


@EVERY_MODEL
async def test_nothing_is_left_to_fetch_after_an_async_flush(
    async_db: AsyncSession, make_row: Any
) -> None:
    """As above, where fetching at attribute access would be an error."""
    row = make_row()
    async_db.add(row)
    await async_db.flush()
    async_db.expunge(row)
    assert NOW_COLUMNS & {name for name, value in columns_of(row).items() if value is not None}


def test_updated_at_comes_back_with_the_update(db: Session) -> None:
    """A change sets `updated_at` to the database's time, and it is loaded."""
    user = a_user()
    db.add(user)
    db.flush()
    assert user.updated_at is None
    user.first_name = "Ada"
    db.flush()
    db.expunge(user)
    assert columns_of(user)["updated_at"] == db.scalar(text("SELECT now()"))


async def test_updated_at_comes_back_with_an_async_update(async_db: AsyncSession) -> None:
    """As above, on the async driver."""
    user = a_user()
    async_db.add(user)
    await async_db.flush()
    user.first_name = "Ada"
    await async_db.flush()
    async_db.expunge(user)
    assert columns_of(user)["updated_at"] == await async_db.scalar(text("SELECT now()"))
