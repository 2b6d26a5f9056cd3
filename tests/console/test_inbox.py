"""The inbox: found, laid out, replayed and ignored, each once a form and with its trace."""

import re

import pytest
from sqlalchemy import select, update

from src.common.async_database import run_in_async_database_transaction
from src.common.models.console_action import ConsoleAction
from src.common.models.stripe_event import StripeEvent
from src.console.pages.inbox import AT_ONCE_MAX
from src.console.permissions import Role
from tests.fixtures.api import Api, balance_of, fetch, make_user
from tests.fixtures.console import Console
from tests.stripe.payments import make_event, make_session, to_body

HOSTILE = "<script>alert(1)</script>\u202e=1+1"


async def make_dead(*event_ids: str) -> None:
    """Events that nobody tries any more."""
    await run_in_async_database_transaction(
        lambda session: session.execute(
            update(StripeEvent)
            .where(StripeEvent.event_id.in_(event_ids))
            .values(status="dead", error=f"BROKEN: {HOSTILE}", next_attempt_at=None)
        )
    )


async def status_of(event_id: str) -> str:
    """The event's status."""
    return await fetch(select(StripeEvent.status).where(StripeEvent.event_id == event_id))


async def actions(name: str) -> list[ConsoleAction]:
    """What the audit trail has of this action."""
    statement = select(ConsoleAction).where(ConsoleAction.action == name)
    return await run_in_async_database_transaction(
        lambda session: list(session.scalars(statement.order_by(ConsoleAction.action_id)))
    )


async def deliver(api: Api, count: int = 1, **metadata: str) -> list[str]:
    """Events of paid sessions of a new user, whom nothing credits with this metadata."""
    user = await make_user()
    names: list[str] = []
    for _ in range(count):
        event = make_event(make_session(user, metadata=metadata))
        await api.deliver(event)
        names.append(event["id"])
    return names


async def test_events_are_found_by_status_and_type(api: Api, console: Console) -> None:
    """And what Stripe or an error said is shown as text."""
    await console.sign_in(Role.VIEWER)
    dead, fine = await deliver(api, 2)
    await make_dead(dead)
    all_of_them = (await console.get("/inbox")).text
    assert dead in all_of_them
    assert fine in all_of_them
    found = (await console.get("/inbox?status=dead&type=checkout.session.completed")).text
    assert dead in found
    assert fine not in found
    assert "<script>alert" not in found
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e=1+1" in found
    assert "There is no such event" in (await console.get("/inbox?type=none")).text
    assert (await console.get("/inbox?status=lost")).status_code == 422
    assert "Replay the chosen" not in all_of_them  # a viewer looks only


async def test_the_list_goes_on_where_it_ended(
    api: Api, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page by page each event comes once, also those of one instant."""
    await console.sign_in(Role.VIEWER)
    names = await deliver(api, 5)
    monkeypatch.setattr("src.console.pages.inbox.PAGE_SIZE", 2)
    seen: list[str] = []
    address = "/inbox"
    while address:
        text = (await console.get(address)).text
        seen += re.findall(r'inbox/(evt_\w+)"', text)
        further = re.search(r'<a href="(\?[^"]*cursor=[^"]*)"', text)
        address = f"/inbox{further[1].replace('&amp;', '&')}" if further else ""
    assert sorted(seen) == sorted(names)


async def test_that_a_body_was_seen_is_recorded(api: Api, console: Console) -> None:
    """It may hold a customer's name and address."""
    await console.sign_in(Role.VIEWER)
    [name] = await deliver(api)
    page = await console.get(f"/inbox/{name}")
    assert "&#34;payment_status&#34;: &#34;paid&#34;" in page.text
    [seen] = await actions("stripe_events.see")
    assert (seen.actor, seen.target) == (console.actor, name)
    assert (await console.get("/inbox/evt_none")).status_code == 404


async def test_a_dead_event_is_replayed_once(api: Api, console: Console) -> None:
    """First it says what it will do; then twice the same form credits once."""
    await console.sign_in(Role.SUPPORT)
    user = await make_user()
    wrong = make_event(make_session(user))
    await api.deliver({**wrong, "type": "ping"})  # ignored: of no type that is handled
    [row] = await run_in_async_database_transaction(
        lambda session: list(session.scalars(select(StripeEvent)))
    )
    await run_in_async_database_transaction(
        lambda session: session.execute(
            update(StripeEvent).values(
                status="dead", type=wrong["type"], body=to_body(wrong), error="BROKEN: no"
            )
        )
    )
    page = await console.get("/inbox")
    asked = await console.send(page, "/inbox", event=row.event_id, do="replay")
    assert "what it says will be settled now" in asked.text
    assert await balance_of(user.user_id) == 0
    for sentence in ("processed now", "before by this form"):
        sent = await console.send(asked, "/inbox")
        assert sent.status_code == 303
        assert sentence in (await console.get("/inbox")).text
        assert await balance_of(user.user_id) == 500
    [asked_for] = await actions("stripe_events.replay")
    [done] = await actions("stripe_events.replayed")
    assert (asked_for.before, done.after) == ({"status": "dead"}, {"status": "processed"})
    assert (asked_for.target, asked_for.actor) == (row.event_id, console.actor)


async def test_several_are_ignored_at_once(api: Api, console: Console) -> None:
    """Each with its own trace; one that was processed stays, and is said to."""
    await console.sign_in(Role.SUPPORT)
    first, second = await deliver(api, 2, user_id="nobody")
    [processed] = await deliver(api)
    page = await console.get("/inbox")
    asked = await console.send(page, "/inbox", event=[first, second, processed], do="ignore")
    assert "processed already, so nothing will happen" in asked.text
    assert await status_of(first) == "unmatched"
    # httpx sends a repeated field from a list: as the browser does
    hidden = re.findall(r'name="event" value="([^"]+)"', asked.text)
    await console.send(asked, "/inbox", event=hidden)
    assert await status_of(first) == await status_of(second) == "ignored"
    assert await status_of(processed) == "processed"
    assert "The event was processed" in (await console.get("/inbox")).text
    assert {each.target for each in await actions("stripe_events.ignore")} == {first, second}


@pytest.mark.parametrize(
    "fields",
    [
        {"do": "replay"},
        {"do": "delete", "event": "evt_1"},
        {"event": "evt_1"},
        {"do": "ignore", "event": [f"evt_{number}" for number in range(AT_ONCE_MAX + 1)]},
    ],
    ids=str,
)
async def test_a_wrong_form_is_refused(
    api: Api, console: Console, fields: dict[str, object]
) -> None:
    """Without events, with too many, or for something else."""
    await console.sign_in(Role.SUPPORT)
    await deliver(api)
    answer = await console.send(await console.get("/inbox"), "/inbox", **fields)
    assert answer.status_code == 422
