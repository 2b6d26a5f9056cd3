"""Notices in the console: endpoints, what was given up, replayed once a form, with its trace."""

import re
import uuid

import pytest
from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from src.common.async_database import run_in_async_database_transaction
from src.common.models.console_action import ConsoleAction
from src.common.models.credit_notice import CreditNotice
from src.common.models.notice_endpoint import NoticeEndpoint, NoticeSecret
from src.common.notices.ids import notice_id
from src.console.pages.notices import AT_ONCE_MAX
from src.console.permissions import Role
from tests.fixtures.api import fetch, make_user
from tests.fixtures.console import Console

SECRET = b"s3cr3t-of-the-endpoint-in-a-test"


async def make_notices(count: int, **columns: object) -> tuple[uuid.UUID, list[str]]:
    """An endpoint, and notices of one user for it; the oldest first."""
    user = await make_user()

    def work(session: Session) -> tuple[uuid.UUID, list[str]]:
        endpoint = NoticeEndpoint(url="https://example.com/hook", types=["credits.granted"])
        session.add(endpoint)
        session.flush()
        session.add(NoticeSecret(endpoint_id=endpoint.endpoint_id, secret=SECRET))
        row = {
            "user_id": user.user_id,
            "endpoint_id": endpoint.endpoint_id,
            "type": "credits.granted",
            "data": {"user_id": str(user.user_id), "amount": 7},
            **columns,
        }
        numbers = session.scalars(
            insert(CreditNotice).returning(CreditNotice.number), [row] * count
        ).all()
        return endpoint.endpoint_id, [notice_id(user.user_id, each) for each in sorted(numbers)]

    return await run_in_async_database_transaction(work)


async def give_up(error: str = "TIMEOUT: the endpoint did not answer in time") -> None:
    """Nobody tries them any more."""
    await run_in_async_database_transaction(
        lambda session: session.execute(
            update(CreditNotice).values(
                status="dead",
                next_attempt_at=None,
                finished_at=func.clock_timestamp(),
                attempts=10,
                error=error,
            )
        )
    )


async def actions(name: str) -> list[ConsoleAction]:
    """What the audit trail has of this action."""
    statement = select(ConsoleAction).where(ConsoleAction.action == name)
    return await run_in_async_database_transaction(
        lambda session: list(session.scalars(statement.order_by(ConsoleAction.action_id)))
    )


async def status_of(name: str) -> str:
    """How far a notice has come."""
    number = int(name.rpartition("_")[2])
    return await fetch(select(CreditNotice.status).where(CreditNotice.number == number))


async def test_endpoints_and_notices_are_shown_and_found(console: Console) -> None:
    """By status, type, endpoint and user; a viewer looks only, and no page has a secret."""
    await console.sign_in(Role.VIEWER)
    endpoint_id, [first] = await make_notices(1)
    await give_up()
    _, [second] = await make_notices(1)
    page = await console.get("/notices")
    assert page.status_code == 200
    for name in (first, second):
        assert f"/console/notices/{name}" in page.text
    assert f'href="?status=dead&amp;endpoint={endpoint_id}">1</a>' in page.text
    dead = (await console.get(f"/notices?status=dead&endpoint={endpoint_id}")).text
    assert first in dead
    assert second not in dead
    assert "TIMEOUT: the endpoint did not answer in time" in dead
    of_user = (await console.get(f"/notices?user={uuid.uuid4()}")).text
    assert "There is no such notice" in of_user
    assert "There is no such notice" in (await console.get("/notices?type=hold.expired")).text
    assert (await console.get("/notices?status=lost")).status_code == 422
    shown = (await console.get(f"/notices/{first}")).text
    assert "&#34;amount&#34;:7" in shown
    assert (await console.get("/notices/ntc_none")).status_code == 404
    for text in (page.text, shown):
        assert "again</button>" not in text
        assert "Disable</button>" not in text
        assert SECRET.decode() not in text
        assert "whsec_" not in text


async def test_the_list_goes_on_where_it_ended(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page by page each notice comes once."""
    await console.sign_in(Role.VIEWER)
    _, names = await make_notices(5)
    monkeypatch.setattr("src.console.pages.notices.PAGE_SIZE", 2)
    seen: list[str] = []
    address = "/notices"
    while address:
        text = (await console.get(address)).text
        seen += re.findall(r'notices/(ntc_\w+)"', text)
        further = re.search(r'<a href="(\?[^"]*cursor=[^"]*)"', text)
        address = f"/notices{further[1].replace('&amp;', '&')}" if further else ""
    assert seen == names[::-1]


async def test_what_was_given_up_is_sent_again_once_a_form(console: Console) -> None:
    """First it says what it will do; the same form twice replays once, each with its trace."""
    await console.sign_in(Role.SUPPORT)
    _, names = await make_notices(2)
    await give_up()
    page = await console.get("/notices?status=dead")
    asked = await console.send(page, "/notices", notice=names)
    assert "credits.granted: dead; it will be sent within seconds" in asked.text
    assert await status_of(names[0]) == "dead"
    for sentence in ("will be sent again", "was sent again by this form"):
        sent = await console.send(asked, "/notices", notice=names)
        assert sent.status_code == 303
        assert sentence in (await console.get("/notices")).text
        assert [await status_of(name) for name in names] == ["pending", "pending"]
    replayed = await actions("notices.replay")
    assert len(replayed) == 2
    assert {each.target for each in replayed} == set(names)
    assert [(each.before, each.after) for each in replayed] == [
        ({"status": "dead"}, {"status": "pending"})
    ] * 2
    assert {each.actor for each in replayed} == {console.actor}


async def test_an_endpoint_is_switched_off_and_on_by_an_admin(console: Console) -> None:
    """With a reason; others see no button and are refused."""
    await console.sign_in(Role.ADMIN)
    endpoint_id, _ = await make_notices(1)
    action = f"/notices/endpoints/{endpoint_id}"
    for what, disabled in (("disable", True), ("enable", False)):
        page = await console.get("/notices")
        fields = {"do": what, "reason": f"to {what} it"}
        asked = await console.send(page, action, **fields)
        assert "https://example.com/hook" in asked.text
        assert (await console.send(asked, action, **fields)).status_code == 303
        since = await fetch(select(NoticeEndpoint.disabled_at))
        assert (since is not None) == disabled
        [done] = await actions(f"notice_endpoints.{what}")
        assert (done.target, done.reason) == (str(endpoint_id), f"to {what} it")
        assert (done.before, done.after) == (
            {"is_disabled": not disabled},
            {"is_disabled": disabled},
        )
    page = await console.get("/notices")
    without = await console.send(page, action, do="disable", reason="")
    assert without.status_code == 422
    unknown = await console.send(page, action, do="delete", reason="x")
    assert unknown.status_code == 422
    await console.sign_in(Role.SUPPORT)
    assert "Disable</button>" not in (await console.get("/notices")).text


@pytest.mark.parametrize(
    "names", [[], ["ntc_none"], [f"ntc_{number}" for number in range(AT_ONCE_MAX + 1)]], ids=len
)
async def test_a_wrong_form_is_refused(console: Console, names: list[str]) -> None:
    """Without notices, with too many, or with one that there is not."""
    await console.sign_in(Role.SUPPORT)
    await make_notices(1)
    answer = await console.send(await console.get("/notices"), "/notices", notice=names)
    assert answer.status_code in {404, 422}
