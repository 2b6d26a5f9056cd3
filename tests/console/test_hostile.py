"""What nobody's browser sends by itself: it is refused in words, and leaves its trace."""

import datetime as dt
import uuid
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.approvals.asking import Asked
from src.common.approvals.operations import execute_or_ask
from src.common.async_database import run_in_async_database_transaction
from src.common.models.console_action import ConsoleAction
from src.console.permissions import Role
from tests.approvals.requests import NOTHING_ALONE, a_grant
from tests.credits.books import booked_balance, make_user
from tests.fixtures.api import Api
from tests.fixtures.console import PAGE, Console

NOBODY = uuid.UUID(int=9)


async def a_request(reason: str = "goodwill", **others: Any) -> uuid.UUID:
    """What somebody else asks for."""

    def work(session: Session) -> uuid.UUID:
        wish = a_grant(make_user(session).user_id, 500, reference=reason, **others)
        asked = execute_or_ask(session, wish, NOTHING_ALONE)
        assert isinstance(asked, Asked)
        return asked.approval.approval_id

    return await run_in_async_database_transaction(work)


@pytest.mark.parametrize(
    "address",
    [
        "/inbox?status=%00",
        "/inbox?type=%00",
        "/inbox/%00",
        "/unmatched/%00",
        "/audit?actor=%00",
        "/audit?actor=user:1&before=9223372036854775807",
        f"/users/{NOBODY}/entries/99999999999999999999/reverse",
        f"/users/{NOBODY}/entries/-1/reverse",
        f"/users/{NOBODY}/holds/99999999999999999999/release",
        "/users?q=%00",
        f"/users/{NOBODY}/entries?text=%00",
        f"/users/{NOBODY}/entries?lot=99999999999999999999",
        f"/users/{NOBODY}/entries?since=9999-12-31&until=9999-12-31",
        f"/users/{NOBODY}/change",
        "/approvals?cursor=%00",
        "/approvals?cursor=MTIz",
        "/reports/liability?until=9999-12-31",
        "/reports/liability?until=0001-01-01&time_zone=Asia/Tokyo",
        "/reports/spending?since=0001-01-01&time_zone=Asia/Tokyo",
        "/reports/liability?time_zone=%00",
        "/reports/liability?time_zone=../../etc/passwd",
    ],
)
async def test_no_address_is_a_defect(console: Console, address: str) -> None:
    """Whatever stands in it."""
    await console.sign_in(Role.ADMIN)
    assert (await console.get(address)).status_code < 500


@pytest.mark.parametrize(
    ("page", "action", "fields"),
    [
        ("/inbox", "/inbox", {"do": "replay", "event": "evt_\x00"}),
        (f"/users/{NOBODY}/entries/1/reverse", "", {"reason": "x", "part": "1,5"}),
        (
            f"/users/{NOBODY}/entries/99999999999999999999/reverse",
            "",
            {"reason": "x", "confirmed": "yes"},
        ),
        (f"/users/{NOBODY}/holds/99999999999999999999/release", "", {"reason": "x"}),
        (f"/users/{NOBODY}/give", "", {"reason": "x" * 400, "amount": "1"}),
        (f"/users/{NOBODY}/give", "", {"reason": "x", "amount": "1", "expires_on": "0001-01-01"}),
        (PAGE, "/sign-in/out", {"form_token": "é"}),
        (PAGE, "/sign-in/out", {"form_key": "é"}),
    ],
)
async def test_no_form_is_a_defect(
    console: Console, page: str, action: str, fields: dict[str, str]
) -> None:
    """Whatever stands in its fields."""
    await console.sign_in(Role.ADMIN)
    hidden = console.hidden(await console.get(PAGE), "/sign-in/out")
    answer = await console.client.post(f"/console{action or page}", data={**hidden, **fields})
    assert 400 <= answer.status_code < 500, answer.text


async def test_a_comma_is_no_decimal_point(console: Console) -> None:
    """Where one writes 12,50 for twelve and a half, nobody is given 1250."""
    await console.sign_in(Role.SUPPORT)
    user_id = await run_in_async_database_transaction(lambda session: make_user(session).user_id)
    address = f"/users/{user_id}/give"
    for written, status in (("12,50", 422), ("1,5", 422), ("1,000", 200), ("1,2,3", 422)):
        page = await console.get(address)
        answer = await console.send(page, address, amount=written, reason="x")
        assert answer.status_code == status, written


async def test_one_key_in_two_forms_leaves_two_traces(console: Console) -> None:
    """Somebody writes the key of one form into another: that is done, so it is recorded."""
    await console.sign_in(Role.SUPPORT)
    both = await run_in_async_database_transaction(
        lambda session: [make_user(session, 5).user_id, make_user(session, 5).user_id]
    )
    key = str(uuid.uuid4())
    for user_id in both:
        address = f"/users/{user_id}/give"
        page = await console.get(address)
        sent = await console.send(
            page, address, amount="7", reason="x", form_key=key, confirmed="yes"
        )
        assert sent.status_code == 303, sent.text

    def seen(session: Session) -> tuple[list[int], int]:
        about = select(ConsoleAction.user_id).where(ConsoleAction.action == "credits.give")
        balances = [booked_balance(session, user_id) for user_id in both]
        return balances, len(set(session.scalars(about)))

    assert await run_in_async_database_transaction(seen) == ([12, 12], 2)


@pytest.mark.parametrize("what", ["consent", "refuse"])
async def test_a_note_names_no_address(console: Console, what: str) -> None:
    """It would be kept for ever."""
    await console.sign_in(Role.ADMIN)
    address = f"/approvals/{await a_request()}"
    page = await console.get(address)
    answer = await console.send(page, address, do=what, note="ask ada@example.com", confirmed="yes")
    assert (answer.status_code, "note: " in answer.text) == (422, True)


async def test_what_is_consented_to_is_shown_as_it_is(console: Console) -> None:
    """A reason that turns the direction of writing hides nothing from who decides."""
    await console.sign_in(Role.ADMIN)
    request_id = await a_request("for \u202eeod")
    address = f"/approvals/{request_id}"
    page = await console.get(address)
    asked = await console.send(page, address, do="consent")
    assert ("\u202e" in asked.text, r"\u202e" in asked.text) == (False, True)


async def test_an_expiry_is_written_in_utc(console: Console) -> None:
    """Also where the command line was given another zone's."""
    await console.sign_in(Role.ADMIN)
    zone = dt.timezone(dt.timedelta(hours=5))
    at = dt.datetime(2099, 1, 1, 3, tzinfo=zone)
    address = f"/approvals/{await a_request(expires_at=at)}"
    assert "until 2098-12-31 22:00 UTC" in (await console.get(address)).text


async def test_going_on_is_no_second_decision(console: Console) -> None:
    """Whoever consents again is told; what the trail says of before is what was before."""
    await console.sign_in(Role.ADMIN)
    address = f"/approvals/{await a_request()}"
    page = await console.get(address)
    hidden = console.hidden(page, address)
    for key in (uuid.uuid4(), uuid.uuid4()):
        data = {**hidden, "do": "consent", "confirmed": "yes", "form_key": str(key)}
        answer = await console.client.post(f"/console{address}", data=data)
        assert answer.status_code == 303
    statement = select(ConsoleAction.before).where(ConsoleAction.action == "approvals.consent")
    found = await run_in_async_database_transaction(
        lambda session: session.scalars(statement).all()
    )
    assert found == [{"status": "open"}, {"status": "consented"}]


async def test_who_came_by_a_link_is_known_on_a_developer_s_machine_only(
    api: Api, console: Console
) -> None:
    """Nobody confirms such a session, so elsewhere it opens nothing, whoever has its cookie."""
    await console.sign_in(Role.ADMIN)
    assert (await console.get(PAGE)).status_code == 200
    settings = api.app.state.settings
    api.app.state.settings = settings.model_copy(update={"env": "prod"})
    answer = await console.get(PAGE)
    assert (answer.status_code, "/sign-in" in answer.headers["location"]) == (303, True)
