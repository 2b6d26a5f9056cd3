"""What nobody's browser sends by itself: it is refused in words, and leaves its trace."""

import datetime as dt
import re
import uuid
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.approvals.asking import Asked
from src.common.approvals.operations import execute_or_ask
from src.common.async_database import run_in_async_database_transaction
from src.common.credits.operations import execute
from src.common.models.console_action import ConsoleAction
from src.console.audit import record
from src.console.people import Person
from src.console.permissions import Role
from src.console.wording import LABELS
from tests.approvals.requests import NOTHING_ALONE, a_grant
from tests.credits.books import booked_balance, grant, make_user
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
        "/notices?status=%00",
        "/notices?type=%00",
        "/notices?endpoint=%00&user=x",
        "/notices?cursor=%00",
        "/notices?cursor=MTIz",
        "/notices/%00",
        "/notices/ntc_00000000000040008000000000000001_9999999999999999999",
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


@pytest.mark.parametrize("seq", [-1, 0, 2**31, 2**63, 10**20])
async def test_no_number_of_an_entry_is_a_defect(console: Console, seq: int) -> None:
    """Of a user whom there is."""
    await console.sign_in(Role.VIEWER)
    user_id = await run_in_async_database_transaction(lambda session: make_user(session).user_id)
    answer = await console.get(f"/users/{user_id}/entries/{seq}")
    assert (answer.status_code, "seq: " in answer.text) == (422, True)


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
        (PAGE, "/unmatched/%00", {"do": "close", "reason": "x", "confirmed": "yes"}),
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


@pytest.mark.parametrize(
    ("field", "written"),
    [("reason", "x" * 256), ("expires_on", "1999-01-01"), ("expires_on", "9999-12-31")],
)
async def test_what_is_wrong_is_said_of_the_field_that_the_page_has(
    console: Console, field: str, written: str
) -> None:
    """Not of what the journal calls it."""
    await console.sign_in(Role.SUPPORT)
    user_id = await run_in_async_database_transaction(lambda session: make_user(session).user_id)
    address = f"/users/{user_id}/give"
    fields = {"amount": "1", "reason": "x", field: written}
    sent = await console.send(await console.get(address), address, **fields)
    assert (sent.status_code, f'class="problem">{LABELS[field]}: ' in sent.text) == (422, True)


async def test_a_reason_too_long_for_a_request_is_said(console: Console) -> None:
    """As of any other field."""
    await console.sign_in(Role.ADMIN)
    page = await console.get("/keys")
    fields = {"service": "shop", "scopes": "credits:grant", "reason": "x" * 256}
    sent = await console.send(page, "/keys", **fields)
    assert (sent.status_code, 'class="problem">Reason: ' in sent.text) == (422, True)


@pytest.mark.parametrize("whose", ["another's", "the same person's"])
async def test_an_entry_names_nobody_who_did_not_make_it(console: Console, whose: str) -> None:
    """Anybody may send the key of a form of somebody else's, for another user or this one."""
    await console.sign_in(Role.SUPPORT)
    form_key = uuid.uuid4()
    person = Person(console.actor, console.name, frozenset({Role.SUPPORT}))
    actor = console.actor if whose == "the same person's" else "key:shop"

    def work(session: Session) -> uuid.UUID:
        user_id = make_user(session).user_id
        record(session, person, "credits.give", user_id=user_id, key=form_key)
        execute(session, [grant(user_id, 5, key=f"console:{form_key}", actor=actor)])
        return user_id

    user_id = await run_in_async_database_transaction(work)
    page = await console.get(f"/users/{user_id}/entries/1")
    assert page.status_code == 200
    assert ("Made in the console" in page.text) == (whose == "the same person's")


async def test_whoever_decides_sees_whom_it_is_about(console: Console) -> None:
    """In the last page before it is done, and who asks, as colleagues call them."""
    await console.sign_in(Role.ADMIN, name="Ada")
    request_id = await a_request(actor=console.actor)
    await console.sign_in(Role.ADMIN, name="Grace")
    address = f"/approvals/{request_id}"
    page = await console.get(address)
    [email] = re.findall(r"It is about <a [^>]*>([^<]+)</a>", page.text)
    for what in ("consent", "refuse"):
        shown = await console.send(page, address, do=what)
        assert f"<dt>User</dt><dd>{email}</dd>" in shown.text
    shown = await console.send(page, address, do="consent")
    assert "<dt>Asked by</dt><dd>Ada</dd>" in shown.text
