"""Doctor, reports, reconciliation, keys and the audit trail."""

import json
import re
from html import unescape

import httpx
import pytest
from sqlalchemy import func, select

from src.common.accounts.api_keys import find_valid_api_key
from src.common.async_database import run_in_async_database_transaction
from src.common.models.api_key import ApiKey
from src.common.models.console_action import ConsoleAction
from src.common.models.reconciliation import Reconciliation
from src.common.reports.catalogue import REPORTS
from src.console.permissions import Role
from tests.api.stripe_side import offline_stripe
from tests.fixtures.api import Api, StartApi, fetch, make_user
from tests.fixtures.console import Console
from tests.stripe.payments import make_event, make_session


async def actions(name: str) -> list[ConsoleAction]:
    """What the audit trail has of this action."""
    statement = select(ConsoleAction).where(ConsoleAction.action == name)
    return await run_in_async_database_transaction(lambda session: list(session.scalars(statement)))


@pytest.fixture
async def served(start_api: StartApi) -> Console:
    """A console on a database of its own, with a purchase: what reads in threads sees it."""
    api = await start_api(STRIPE_MODE="test")
    user = await make_user()
    await api.deliver(make_event(make_session(user)))
    await api.deliver(make_event(make_session(user, amount_total=1)))
    browser = Console(api.client)
    await browser.sign_in(Role.ADMIN)
    return browser


async def test_the_overview_shows_what_is_wrong_and_how_much_there_is(served: Console) -> None:
    """Each tile is green or a link; each chart has its figures as a table."""
    page = await served.get("/")
    assert page.status_code == 200
    found = re.findall(r'<article class="tile (\w+)">\s*<h3>([^<]+)</h3>', page.text)
    tiles = {title: kind for kind, title in found}
    assert tiles["Inbox, given up"] == "ok"
    assert tiles["Unmatched payments"] == "warn"
    assert tiles["Worker"] == "fail"
    assert tiles["Batch engine"] == "ok"
    assert '<a href="/console/unmatched">warn</a>' in page.text
    assert '<a href="/console/doctor#worker">fail</a>' in page.text
    assert ">500</p>" in page.text  # credits outstanding
    assert "5.00 USD" in page.text
    charts = re.findall(r"data-chart=", page.text)
    assert len(charts) == page.text.count("<summary>The figures of") == 4
    assert "a day (USD)</figcaption>" in page.text
    assert '<td class="number">5.00</td>' in page.text


async def test_a_page_waits_for_no_figures(
    served: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where reading them takes long it says so; they are read once for all who come."""
    monkeypatch.setattr("src.console.known.PATIENCE_SECONDS", 0)
    assert "The figures are being read" in (await served.get("/")).text
    monkeypatch.undo()
    assert "As of " in (await served.get("/")).text


async def test_the_doctor_says_what_the_command_says(served: Console) -> None:
    """Every check, with the next step."""
    page = await served.get("/doctor")
    assert page.status_code == 200
    assert '<tr id="unmatched-payments">' in page.text
    assert "1 payment credited nobody." in page.text
    assert "flashslides stripe unmatched list" in page.text


@pytest.mark.parametrize("name", [*REPORTS, "journal"])
async def test_every_report_is_shown_and_taken(served: Console, name: str) -> None:
    """As a page, whose figures are read once they are asked for, and as a recorded file."""
    first = await served.get(f"/reports/{name}")
    assert (first.status_code, "<tbody>" in first.text) == (200, False)
    page = await served.get(f"/reports/{name}?time_zone=UTC")
    assert page.status_code == 200
    format_ = "beancount" if name == "journal" else "csv"
    assert f"/console/reports/{name}/file?format={format_}" in page.text
    file = await served.get(f"/reports/{name}/file?format={format_}")
    assert file.headers["content-disposition"] == f'attachment; filename="{name}.{format_}"'
    assert len(file.content) > 50
    [taken] = await actions("reports.download")
    assert (taken.target, taken.after) == (name, {"format": format_, "time_zone": "UTC"})


async def test_a_chart_of_money_is_in_whole_units(served: Console) -> None:
    """5.00 of a dollar, not 500 of its cents: drawn and written."""
    page = await served.get("/reports/sales?time_zone=UTC")
    assert "(net sales, in the currency)</figcaption>" in page.text
    assert '<td class="number">5.00</td>' in page.text
    [drawn] = re.findall(r'data-chart="([^"]*)"', page.text)
    assert [each["values"] for each in json.loads(unescape(drawn))["series"]] == [[5.0]]


async def test_a_report_is_of_the_days_that_are_asked_for(served: Console) -> None:
    """By day, with a chart; what is no day is said above the form."""
    page = await served.get("/reports/movements?since=2026-01-01&until=2126-01-01&by=month")
    assert page.status_code == 200
    assert "data-chart" in page.text
    wrong = await served.get("/reports/movements?since=2026-02-30")
    assert wrong.status_code == 422
    assert "From: a day, such as 2030-01-31" in wrong.text
    assert 'name="since" value="2026-02-30"' in wrong.text


async def test_a_run_now_is_left_to_the_worker(api: Api, console: Console) -> None:
    """It is written down once a form, as a run that waits to be taken up."""
    await console.sign_in(Role.FINANCE)
    offline_stripe(api)
    asked = await console.send(await console.get("/reconciliation"), "/reconciliation")
    assert "No worker is at work" in asked.text
    for _ in range(2):
        sent = await console.send(asked, "/reconciliation")
        assert sent.headers["location"] == "/console/reconciliation"
    run = await fetch(select(Reconciliation))
    assert (run.status, run.repairs, run.lease_expires_at) == ("running", True, None)
    [done] = await actions("reconciliations.run")
    assert done.after == {"runs": [str(run.reconciliation_id)]}
    listed = await console.get("/reconciliation")
    assert '<meta http-equiv="refresh"' in listed.text
    assert str(run.reconciliation_id) in listed.text
    assert (await console.get(f"/reconciliation/{run.reconciliation_id}")).status_code == 200


async def test_without_a_stripe_key_nothing_is_compared(console: Console) -> None:
    """And the page says so."""
    await console.sign_in(Role.FINANCE)
    asked = await console.send(await console.get("/reconciliation"), "/reconciliation")
    sent = await console.send(asked, "/reconciliation")
    assert sent.status_code == 503
    assert "The worker compares nothing" in sent.text


def key_in(page: httpx.Response) -> str:
    """The key that a page shows."""
    found = re.search(r"<code>(fsk_[^<]+)</code>", page.text)
    assert found is not None
    return found[1]


async def test_a_key_is_shown_once(console: Console) -> None:
    """The same form sent again makes none; whoever revokes it ends it."""
    await console.sign_in(Role.ADMIN)
    page = await console.get("/keys")
    fields = {"service": "slides", "scopes": "users:read", "days": "30", "reason": "Launch"}
    key = key_in(await console.send(page, "/keys", **fields))
    again = await console.send(page, "/keys", **fields)
    assert again.status_code == 303
    listed = await console.get("/keys")
    assert "which was shown then" in listed.text
    assert key not in listed.text
    record = await run_in_async_database_transaction(
        lambda session: find_valid_api_key(session, key)
    )
    assert record is not None
    assert await fetch(select(func.count()).select_from(ApiKey)) == 1
    [made] = await actions("api_keys.create")
    assert (made.target, made.reason) == (str(record.key_id), "Launch")
    revoke = f"/keys/{record.key_id}/revoke"
    await console.send(await console.send(listed, revoke), revoke)
    found = await run_in_async_database_transaction(
        lambda session: find_valid_api_key(session, key)
    )
    assert found is None
    assert [each.target for each in await actions("api_keys.revoke")] == [str(record.key_id)]


async def test_a_key_that_moves_money_takes_two_persons(console: Console) -> None:
    """It is shown to whoever asks, works once another has consented, and its hash is nowhere."""
    await console.sign_in(Role.ADMIN)
    page = await console.get("/keys")
    fields = {"service": "shop", "scopes": "credits:grant", "reason": "Gifts"}
    sent = await console.send(page, "/keys", **fields)
    key = key_in(sent)
    assert "once another person has consented" in sent.text
    again = await console.send(page, "/keys", **fields)
    assert again.status_code == 303
    [request_id] = re.findall(r'href="/console(/approvals/[^"]+)"', sent.text)
    own = await console.get(request_id)
    assert "an API key of shop for credits:grant" in own.text
    assert ">Consent</button>" not in own.text
    await console.sign_in(Role.ADMIN, name="Grace")
    shown = await console.get(request_id)
    assert "<dt>It may</dt><dd>credits:grant</dd>" in shown.text
    asked = await console.send(shown, request_id, do="consent")
    await console.send(asked, request_id)
    found = await run_in_async_database_transaction(
        lambda session: find_valid_api_key(session, key)
    )
    assert found is not None
    for each in [*await actions("api_keys.create"), *await actions("approvals.consent")]:
        assert found.key_hash.hex() not in str(each.after)


async def test_a_wrong_key_is_refused_with_what_was_written(console: Console) -> None:
    """Without a scope, for instance."""
    await console.sign_in(Role.ADMIN)
    page = await console.get("/keys")
    sent = await console.send(page, "/keys", service="slides", reason="Launch")
    assert sent.status_code == 422
    assert "scopes: name at least one" in sent.text
    assert 'name="service" value="slides"' in sent.text


async def test_the_audit_trail_is_read_by_person_and_user(console: Console) -> None:
    """With the person's name, page by page; that somebody reads it is in it as well."""
    await console.sign_in(Role.VIEWER, name="Grace")
    grace = console.actor
    await console.sign_in(Role.ADMIN, name="Ada")
    everybody = (await console.get("/audit")).text
    assert ">Ada</a>" in everybody
    assert ">Grace</a>" in everybody
    assert "2 entries in all" in everybody
    again = (await console.get("/audit")).text
    assert ("3 entries in all" in again, "audit.see" in again) == (True, True)
    of_grace = (await console.get("/audit", params={"actor": grace})).text
    assert ">Ada</a>" not in of_grace
    assert (await console.get("/audit?user_id=1")).status_code == 422
    of_nobody = await console.get("/audit?user_id=00000000-0000-0000-0000-000000000000")
    assert ">Ada</a>" not in of_nobody.text
