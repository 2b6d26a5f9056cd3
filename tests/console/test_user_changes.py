"""Changing an account in the console: shown first, done once, with a reason and a trace."""

import uuid
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.async_database import run_in_async_database_transaction
from src.common.models.approval import Approval
from src.common.models.console_action import ConsoleAction
from src.common.models.user import User
from src.console.permissions import Role
from tests.approvals.requests import a_grant, asked
from tests.credits.books import make_user
from tests.fixtures.console import Console


@pytest.fixture
async def who(console: Console) -> uuid.UUID:
    """A user with 40 credits, somebody's request about them; an administrator looks at it."""
    await console.sign_in(Role.ADMIN)

    def work(session: Session) -> uuid.UUID:
        user_id = make_user(session, 40).user_id
        asked(session, a_grant(user_id, 5))
        return user_id

    return await run_in_async_database_transaction(work)


async def actions() -> list[ConsoleAction]:
    """What the audit trail says was done about users."""
    statement = select(ConsoleAction).where(ConsoleAction.form_key.is_not(None))
    return list(await run_in_async_database_transaction(lambda db: db.scalars(statement).all()))


async def user_of(who: uuid.UUID) -> User:
    """The user as they are now."""
    return await run_in_async_database_transaction(lambda db: db.get_one(User, who))


CHANGES: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "another type": ("type", {"user_type": "guest"}, {"type": "guest"}),
    "not active": ("active", {"do": "deactivate"}, {"active": False}),
    "erased": ("erase", {}, {"active": False, "erased": True}),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_it_is_shown_and_then_done_once(console: Console, who: uuid.UUID, name: str) -> None:
    """However often the confirmed form is sent; the trail has who, why, before and after."""
    below, fields, changed = CHANGES[name]
    page = await console.get(f"/users/{who}/change")
    address = f"/users/{who}/{below}"
    shown = await console.send(page, address, reason="asked by letter", **fields)
    assert "40 in the balance" in shown.text
    assert await actions() == []
    for _ in range(2):
        assert (await console.send(shown, address)).status_code == 303
    [action] = await actions()
    before = {"type": "individual", "active": True, "erased": False}
    assert (action.user_id, action.reason, action.before) == (who, "asked by letter", before)
    assert action.after == {**before, **changed}


async def test_an_erased_person_is_nowhere(console: Console, who: uuid.UUID) -> None:
    """The address is gone, requests are withdrawn, and nothing leads to another erasure."""
    email = (await user_of(who)).email
    page = await console.get(f"/users/{who}/change")
    shown = await console.send(page, f"/users/{who}/erase", reason="asked by letter")
    await console.send(shown, f"/users/{who}/erase")
    assert email not in (await console.get(f"/users/{who}")).text
    again = await console.get(f"/users/{who}/change")
    assert "/erase" not in again.text
    status = select(Approval.status)
    found = await run_in_async_database_transaction(lambda db: db.scalars(status).one())
    assert found == "withdrawn"


@pytest.mark.parametrize(
    ("below", "fields", "sentence"),
    [
        ("type", {"user_type": "admin"}, "user_type: one of"),
        ("type", {"user_type": "queen"}, "user_type: one of"),
        ("type", {"user_type": "guest", "reason": ""}, "Reason: "),
        ("active", {"do": "sleep"}, "do: activate or deactivate"),
        ("erase", {"reason": "ada@example.com"}, "Reason: "),
    ],
)
async def test_what_is_wrong_is_said_and_nothing_is_done(
    console: Console, who: uuid.UUID, below: str, fields: dict[str, str], sentence: str
) -> None:
    """Nobody becomes an administrator here: their token moves money where nobody is asked."""
    page = await console.get(f"/users/{who}/change")
    fields = {"reason": "x", **fields}
    for confirmed in ("", "yes"):
        sent = await console.send(page, f"/users/{who}/{below}", confirmed=confirmed, **fields)
        assert (sent.status_code, sentence in sent.text) == (422, True)
    assert await actions() == []
    user = await user_of(who)
    assert (user.user_type, user.is_active) == ("individual", True)


async def test_a_form_of_before_says_that_it_does_nothing_more(
    console: Console, who: uuid.UUID
) -> None:
    """Whoever goes back in the browser and chooses otherwise is not told that it is done."""
    page = await console.get(f"/users/{who}/change")
    address = f"/users/{who}/type"
    for chosen, sentence in (("guest", "It is done."), ("member", "nothing more is done with it")):
        await console.send(page, address, reason="x", confirmed="yes", user_type=chosen)
        assert sentence in (await console.get(f"/users/{who}")).text
    assert (await user_of(who)).user_type == "guest"
    assert len(await actions()) == 1
