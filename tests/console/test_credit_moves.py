"""Moving credits in the console: shown first, once for each form, above limits by request."""

import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.async_database import run_in_async_database_transaction
from src.common.credits.operations import execute
from src.common.models.approval import Approval
from src.common.models.console_action import ConsoleAction
from src.common.models.user import User
from src.console.permissions import Role
from tests.credits.books import booked_balance, journal, make_user, open_hold, spend
from tests.fixtures.console import Console


@pytest.fixture
async def who(console: Console) -> uuid.UUID:
    """A user with 400 credits, of 500 in one lot: 50 spent, 50 held. Ada of support looks at it."""
    await console.sign_in(Role.SUPPORT)

    def work(session: Session) -> uuid.UUID:
        user = make_user(session, 500)
        execute(session, [spend(user.user_id, 50), open_hold(user.user_id, 50, 86_400)])
        return user.user_id

    return await run_in_async_database_transaction(work)


ACTIONS: dict[str, tuple[str, dict[str, str], tuple[str, int]]] = {
    # address below the user's, fields, and the entry
    "give": ("give", {"amount": "1,000", "source": "subscription"}, ("grant", 1_000)),
    "take": ("take", {"amount": "100"}, ("adjustment", -100)),
    "reverse all": ("entries/2/reverse", {}, ("reversal", 50)),
    "reverse a part": ("entries/2/reverse", {"part": "20"}, ("reversal", 20)),
    "release": ("holds/3/release", {}, ("release", 50)),
}


async def ask(console: Console, address: str, fields: dict[str, str]) -> httpx.Response:
    """Fill the form in and send it: what it will do."""
    page = await console.get(address)
    assert page.status_code == 200, page.text
    shown = await console.send(page, address, reason="promised", **fields)
    assert shown.status_code == 200, shown.text
    return shown


async def found(work: Callable[[Session], Any]) -> Any:
    """What the database says."""
    return await run_in_async_database_transaction(work)


async def entries(who: uuid.UUID) -> list[tuple[str, int]]:
    """What came after what the user began with."""
    return list(await found(lambda session: journal(session, who)[3:]))


async def actions() -> list[ConsoleAction]:
    """What the audit trail says was done about users."""
    about_users = select(ConsoleAction).where(
        ConsoleAction.user_id.is_not(None), ConsoleAction.action != "users.see"
    )
    return list(await found(lambda session: session.scalars(about_users).all()))


@pytest.mark.parametrize("name", ACTIONS)
async def test_it_is_shown_and_then_done_once(console: Console, who: uuid.UUID, name: str) -> None:
    """However often the confirmed form is sent; the person is its actor, and in the audit trail."""
    below, fields, entry = ACTIONS[name]
    address = f"/users/{who}/{below}"
    shown = await ask(console, address, fields)
    assert f"{entry[1]:+,}" in shown.text
    assert f"{400 + entry[1]:,}" in shown.text
    assert await entries(who) == [], "nothing was done yet"
    for _ in range(3):
        done = await console.send(shown, address)
        assert done.status_code == 303, done.text
    assert await entries(who) == [entry]
    [action] = await actions()
    assert (action.actor, action.user_id, action.reason) == (console.actor, who, "promised")
    assert action.before == {"balance": 400}
    assert action.after is not None
    assert action.after["balance"] == 400 + entry[1]


async def test_the_form_names_who_it_is_about(console: Console, who: uuid.UUID) -> None:
    """By their address, which the trail says somebody saw; nobody is not found."""
    email = await found(lambda session: session.get_one(User, who).email)
    address = f"/users/{who}/give"
    page = await console.get(address)
    shown = await console.send(page, address, amount="5", reason="promised")
    assert email in page.text
    assert f"<dt>User</dt><dd>{email}</dd>" in shown.text
    seen = select(ConsoleAction.target).where(ConsoleAction.action == "users.see")
    assert await found(lambda session: session.scalars(seen).all()) == ["Give credits"] * 2


async def test_two_clicks_with_two_forms_are_two_gifts(console: Console, who: uuid.UUID) -> None:
    """A form opened anew has another key."""
    for _ in range(2):
        shown = await ask(console, f"/users/{who}/give", {"amount": "5"})
        await console.send(shown, f"/users/{who}/give")
    assert await entries(who) == [("grant", 5), ("grant", 5)]


@pytest.mark.parametrize(
    ("below", "fields", "sentence"),
    [
        ("give", {"amount": "0"}, "Credits: from 1"),
        ("give", {"amount": "many"}, "Credits: a whole number"),
        ("give", {"amount": "5", "source": "purchase"}, "source: one of"),
        ("give", {"amount": "5", "expires_on": "soon"}, "Expire on: a day"),
        ("give", {"amount": "5", "expires_on": "2020-01-31"}, "Expire on: lies in the past"),
        ("take", {"amount": "401"}, "401 credits are needed, 400 are available"),
        ("entries/2/reverse", {"part": "51"}, "The entry has 50 credits left to reverse"),
        ("entries/9/reverse", {}, "Entry not found"),
        ("holds/9/release", {}, "Hold not found"),
    ],
)
async def test_what_is_wrong_is_said_at_the_form(
    console: Console, who: uuid.UUID, below: str, fields: dict[str, str], sentence: str
) -> None:
    """With what was filled in, and nothing done."""
    address = f"/users/{who}/{below}"
    page = await console.get(address)
    answer = await console.send(page, address, reason="promised", **fields)
    assert 400 <= answer.status_code < 500
    assert sentence in answer.text
    assert 'value="promised"' in answer.text
    assert await entries(who) == []


async def test_who_undid_an_entry_has_a_name_on_its_page(console: Console, who: uuid.UUID) -> None:
    """As on every other page: nobody knows a colleague by an id."""
    address = f"/users/{who}/entries/2/reverse"
    await console.send(await ask(console, address, {}), address)
    page = await console.get(f"/users/{who}/entries/2")
    assert f'<td><span title="{console.actor}">Ada</span></td>' in page.text


async def test_a_reason_is_wanted(console: Console, who: uuid.UUID) -> None:
    """And it names nobody."""
    page = await console.get(f"/users/{who}/give")
    for reason in ("", "for ada@example.com"):
        answer = await console.send(page, f"/users/{who}/give", amount="5", reason=reason)
        assert (answer.status_code, "Reason: " in answer.text) == (422, True)


async def test_above_the_limit_it_becomes_a_request(console: Console, who: uuid.UUID) -> None:
    """Once, and it is said before: nothing moves until another person consents."""
    address = f"/users/{who}/give"
    shown = await ask(console, address, {"amount": "10001"})
    assert "once another person consents" in shown.text
    for _ in range(2):
        asked = await console.send(shown, address)
        assert "/console/approvals/" in asked.headers["location"]
    assert await entries(who) == []
    [request] = await found(lambda session: session.scalars(select(Approval)).all())
    assert (request.requester, request.reason) == (console.actor, "promised")
    [action] = await actions()
    assert action.after == {"asked_for": str(request.approval_id)}


async def test_the_form_s_key_with_another_amount_does_nothing(
    console: Console, who: uuid.UUID
) -> None:
    """Somebody goes back, changes the figure and sends the old confirmation again."""
    address = f"/users/{who}/give"
    shown = await ask(console, address, {"amount": "5"})
    await console.send(shown, address)
    changed = await console.send(shown, address, amount="6")
    assert (changed.status_code, "used for another request" in changed.text) == (409, True)
    assert await entries(who) == [("grant", 5)]
    assert await found(lambda session: booked_balance(session, who)) == 405
