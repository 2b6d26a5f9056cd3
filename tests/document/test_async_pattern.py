"""Chapter "Asynchronous Database Access": credits, the webhook, several operations at once."""

import uuid

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from src.common.async_database import AsyncSessionLocal, dispose_async_db, get_async_db
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.transaction import Transaction
from src.common.models.user import User
from tests.document.document import run, run_async
from tests.models.examples import a_transaction, a_user

# The block uses `user` before any line of it loads one.
LOADING_THE_USER = {
    "        try:\n": (
        "        user = await db.get_one(User, user_id, with_for_update=True)\n        try:\n"
    )
}


@pytest.fixture
async def user(async_db: AsyncSession) -> User:
    """A committed user."""
    person = a_user()
    async_db.add(person)
    await async_db.commit()
    return person


async def balance_of(user_id: uuid.UUID) -> int:
    """The user's balance as the database has it."""
    async with get_async_db() as db:
        return (await db.scalars(select(User.credits_balance).filter_by(user_id=user_id))).one()


async def test_credits_are_added(user: User) -> None:
    """The document's update_credits adds to the balance and commits."""
    update_credits = run("update_credits", UUID=uuid.UUID)["update_credits"]
    await update_credits(user.user_id, 500)
    await update_credits(user.user_id, 200)
    assert await balance_of(user.user_id) == 700


@pytest.mark.usefixtures("async_db")
async def test_credits_for_nobody_are_refused() -> None:
    """The document's update_credits raises USER_NOT_FOUND for an unknown user."""
    update_credits = run("update_credits", UUID=uuid.UUID)["update_credits"]
    with pytest.raises(ExceptionWithErrorType) as caught:
        await update_credits(uuid.uuid4(), 500)
    assert caught.value.error_type == "USER_NOT_FOUND"


async def test_a_locked_row_can_be_changed(user: User) -> None:
    """The document's SELECT FOR UPDATE block adds its 100 credits."""
    await run_async("a locked row", user_id=user.user_id)
    assert await balance_of(user.user_id) == 100


async def test_several_operations_commit_together(user: User) -> None:
    """The document's block stores the purchase and the credits it bought, both."""
    given = {"user_id": user.user_id, "credits": 500, "amount": 450, "session_id": "cs_1"}
    await run_async("several operations", filling=LOADING_THE_USER, **given)
    assert await balance_of(user.user_id) == 500
    async with get_async_db() as db:
        stored = (await db.scalars(select(Transaction))).one()
    assert (stored.stripe_session_id, stored.amount_paid_cents) == ("cs_1", 450)
    assert (stored.user_id, stored.credits_added) == (user.user_id, 500)


async def test_a_purchase_that_comes_twice_adds_no_credits(user: User) -> None:
    """The second time, the unique constraint undoes the credits as well."""
    given = {"user_id": user.user_id, "credits": 500, "amount": 450, "session_id": "cs_1"}
    await run_async("several operations", filling=LOADING_THE_USER, **given)
    with pytest.raises(IntegrityError):
        await run_async("several operations", filling=LOADING_THE_USER, **given)
    assert await balance_of(user.user_id) == 500


async def test_both_steps_commit_together(async_db: AsyncSession, user: User) -> None:
    """The document's `async with db.begin():` around two steps keeps both."""
    assert user.credits_balance == 0
    async with AsyncSessionLocal() as db:
        person = await db.get_one(User, user.user_id)
        await db.commit()
        await run_async(
            "one commit for all steps",
            filling={"Transaction(...)": "a_transaction(user=user, credits_added=100)"},
            db=db,
            user=person,
            a_transaction=a_transaction,
        )
    assert await balance_of(user.user_id) == 100
    assert len((await async_db.scalars(select(Transaction))).all()) == 1


async def test_a_row_is_locked_before_it_is_changed(user: User) -> None:
    """The document's "lock before changing" works inside a database transaction."""
    async with get_async_db() as db, db.begin():
        await run_async("lock before changing", db=db, user_id=user.user_id)
    assert await balance_of(user.user_id) == 100


async def test_a_row_can_be_shown_after_it_was_committed(user: User) -> None:
    """Nothing is expired by a commit: under asyncio, that would be an error at the next access."""
    async with get_async_db() as db:
        async with db.begin():
            found = await db.get_one(User, user.user_id)
            found.credits_balance += 1
        assert found.credits_balance == 1
    assert found.updated_at is not None


@pytest.mark.usefixtures("fresh_database")
@pytest.mark.parametrize("snippet", ["POST /webhook", "async in async"])
async def test_the_document_s_webhook_routes_answer(snippet: str) -> None:
    """Both of the document's async routes run in FastAPI, on the async engine."""
    app = FastAPI()
    app.include_router(run(snippet)["router"])
    app.router.add_event_handler("shutdown", dispose_async_db)
    with TestClient(app) as client:  # its own event loop: the engine is disposed of in there
        assert client.post("/webhook").status_code == 200
