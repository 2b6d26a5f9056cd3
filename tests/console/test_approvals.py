"""The page of approvals: nobody sees a button on their own, and consent is given once."""

import uuid

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.approvals.asking import Asked
from src.common.approvals.operations import execute_or_ask
from src.common.async_database import run_in_async_database_transaction
from src.common.credits.operations import execute
from src.common.models.approval import Approval
from src.common.models.console_action import ConsoleAction
from src.console.permissions import Role
from tests.approvals.requests import NOTHING_ALONE, a_grant, an_adjustment
from tests.credits.books import booked_balance, make_user, spend
from tests.fixtures.console import Console


@pytest.fixture
async def request_id(console: Console) -> uuid.UUID:
    """Ada asks for 500 credits for somebody; she is signed in."""
    await console.sign_in(Role.ADMIN)

    def work(session: Session) -> uuid.UUID:
        asked = execute_or_ask(
            session,
            a_grant(make_user(session).user_id, 500, actor=console.actor),
            NOTHING_ALONE,
        )
        assert isinstance(asked, Asked)
        return asked.approval.approval_id

    return await run_in_async_database_transaction(work)


async def balance(request_id: uuid.UUID) -> int:
    """What the user of a request has."""

    def work(session: Session) -> int:
        user_id = session.get_one(Approval, request_id).user_id
        assert user_id is not None
        return booked_balance(session, user_id)

    return await run_in_async_database_transaction(work)


async def actions(request_id: uuid.UUID) -> list[tuple[str, str, str | None]]:
    """What the audit trail says of a request: who did what, and why."""
    rows = select(ConsoleAction.action, ConsoleAction.actor, ConsoleAction.reason).where(
        ConsoleAction.target == str(request_id)
    )
    return await run_in_async_database_transaction(
        lambda session: [tuple(each) for each in session.execute(rows)]  # type: ignore[misc]  # three of them
    )


async def test_nobody_sees_a_button_on_their_own(console: Console, request_id: uuid.UUID) -> None:
    """Nor may they send the form; they can take it back, and others cannot."""
    address = f"/approvals/{request_id}"
    own = await console.get(address)
    assert (">Consent<" in own.text, ">Withdraw it<" in own.text) == (False, True)
    hidden = console.hidden(own, f"{address}/withdraw")
    forged = {**hidden, "do": "consent", "confirmed": "yes"}
    answer = await console.client.post(f"/console{address}", data=forged)
    assert (answer.status_code, "another person does" in answer.text) == (403, True)
    await console.sign_in(Role.ADMIN, name="Grace")
    other = await console.get(address)
    assert (">Consent<" in other.text, ">Withdraw it<" in other.text) == (True, False)
    hidden = console.hidden(other, address)
    answer = await console.client.post(f"/console{address}/withdraw", data=hidden)
    assert answer.status_code == 403
    assert await balance(request_id) == 0


async def test_another_person_consents_once(console: Console, request_id: uuid.UUID) -> None:
    """After what it will do was shown; a double click, a reload: the same answer, one entry."""
    address = f"/approvals/{request_id}"
    await console.sign_in(Role.ADMIN, name="Grace")
    listed = await console.get("/approvals")
    assert ("500 promo credits given" in listed.text, address in listed.text) == (True, True)
    page = await console.get(address)
    assert "+500" in page.text
    shown = await console.send(page, address, do="consent", note="seen the report")
    assert "+500" in shown.text
    assert ("<dd>Ada</dd>" in shown.text, "user:" in shown.text) == (True, False)
    assert await balance(request_id) == 0, "nothing was done yet"
    for _ in range(3):
        done = await console.send(shown, address)
        assert done.status_code == 303, done.text
    assert await balance(request_id) == 500
    assert await actions(request_id) == [("approvals.consent", console.actor, "seen the report")]
    after = await console.get(address)
    assert (">Consent<" in after.text, "consented" in after.text) == (False, True)


async def test_another_person_refuses(console: Console, request_id: uuid.UUID) -> None:
    """It is never done; who comes later is told."""
    address = f"/approvals/{request_id}"
    await console.sign_in(Role.ADMIN, name="Grace")
    page = await console.get(address)
    shown = await console.send(page, address, do="refuse", note="")
    assert (await console.send(shown, address)).status_code == 303
    await console.sign_in(Role.ADMIN, name="Mary")
    hidden = console.hidden(await console.get("/"), "/sign-in/out")
    late = {**hidden, "do": "consent", "confirmed": "yes"}
    answer = await console.client.post(f"/console{address}", data=late)
    assert (answer.status_code, "refused by" in answer.text) == (409, True)
    assert await balance(request_id) == 0
    assert "No request is open." in (await console.get("/approvals")).text


async def test_whoever_asked_withdraws(console: Console, request_id: uuid.UUID) -> None:
    """With a role that may not decide as well."""
    await console.sign_in(Role.SUPPORT)
    address = f"/approvals/{request_id}"
    page = await console.get(address)
    assert (await console.send(page, f"{address}/withdraw")).status_code == 303
    assert [action for action, _, _ in await actions(request_id)] == ["approvals.withdraw"]


async def test_what_would_be_refused_is_said_before(console: Console) -> None:
    """The balance is too small by now: in words, on the page, before anybody consents."""
    await console.sign_in(Role.ADMIN)

    def work(session: Session) -> uuid.UUID:
        user_id = make_user(session, 100).user_id
        asked = execute_or_ask(session, an_adjustment(user_id, -100), NOTHING_ALONE)
        execute(session, [spend(user_id, 1)])
        assert isinstance(asked, Asked)
        return asked.approval.approval_id

    request_id = await run_in_async_database_transaction(work)
    page = await console.get(f"/approvals/{request_id}")
    assert "100 credits are needed, 99 are available" in page.text
    hidden = console.hidden(page, f"/approvals/{request_id}")
    confirmed = {**hidden, "do": "consent", "confirmed": "yes"}
    answer = await console.client.post(f"/console/approvals/{request_id}", data=confirmed)
    assert answer.status_code == 402
    assert await actions(request_id) == []
