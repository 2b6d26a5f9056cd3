"""Unmatched payments: each with its reason and ways out; credited or closed once, with a trace."""

import uuid
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from src.common.async_database import run_in_async_database_transaction
from src.common.models.console_action import ConsoleAction
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.models.user import User
from src.common.purchases.rules import Reason
from src.console.pages.unmatched import WAYS_OUT
from src.console.permissions import Role
from src.console.wording import LABELS
from tests.fixtures.api import Api, balance_of, fetch, make_user
from tests.fixtures.console import Console
from tests.stripe.payments import make_event, make_session


async def pay(api: Api, user: User, **changes: Any) -> str:
    """A payment that credits nobody; its name."""
    session = make_session(user, **changes)
    await api.deliver(make_event(session))
    name: str = session["id"]
    return name


async def trail() -> list[ConsoleAction]:
    """What was done with unmatched payments."""
    statement = select(ConsoleAction).where(ConsoleAction.action.startswith("unmatched"))
    return await run_in_async_database_transaction(lambda session: list(session.scalars(statement)))


def test_every_reason_has_its_ways_out() -> None:
    """One to three of them."""
    assert WAYS_OUT.keys() == set(Reason)
    assert all(1 <= len(ways) <= 3 for ways in WAYS_OUT.values())


async def test_each_is_listed_with_its_reason(api: Api, console: Console) -> None:
    """In a sentence, with what was paid; and nothing where there is none."""
    await console.sign_in(Role.VIEWER)
    assert "Every payment was credited" in (await console.get("/unmatched")).text
    name = await pay(api, await make_user(), amount_subtotal=1, amount_total=1)
    page = (await console.get("/unmatched")).text
    assert name in page
    assert "AMOUNT_MISMATCH" in page
    assert "0.01 USD" in page
    detail = (await console.get(f"/unmatched/{name}")).text
    assert all(way in detail for way in WAYS_OUT[Reason.AMOUNT_MISMATCH])
    assert "Credit it by hand below" in detail
    assert "Show what it will do" not in detail  # a viewer looks only
    assert (await console.get("/unmatched/cs_none")).status_code == 404


async def test_it_is_credited_once_after_a_dry_run(api: Api, console: Console) -> None:
    """To somebody else, by address; a double click and a reload give nothing twice."""
    await console.sign_in(Role.FINANCE)
    name = await pay(api, await make_user(), metadata={"user_id": "nobody"})
    grace = await make_user(email="grace@example.com")
    address = f"/unmatched/{name}"
    fields = {"do": "credit", "user": "Grace@example.com", "credits": "", "reason": "She paid"}
    asked = await console.send(await console.get(address), address, **fields)
    assert "Balance afterwards" in asked.text
    assert "500" in asked.text
    assert await balance_of(grace.user_id) == 0
    assert await fetch(select(UnmatchedPayment.status)) == "open"
    for sentence in (f"{name} is settled.", "was settled before by this form"):
        sent = await console.send(asked, address)
        assert (sent.status_code, sent.headers["location"]) == (303, "/console/unmatched")
        assert sentence in (await console.get("/unmatched")).text
        assert await balance_of(grace.user_id) == 500
    row = await fetch(select(UnmatchedPayment))
    assert (row.status, row.resolution, row.actor) == ("resolved", "She paid", console.actor)
    [done] = await trail()
    assert (done.action, done.target, done.reason) == ("unmatched.credit", name, "She paid")
    assert (done.user_id, done.actor) == (grace.user_id, console.actor)
    assert done.after is not None
    assert done.after["credits"] == 500


async def test_it_is_closed_with_a_note(api: Api, console: Console) -> None:
    """Nothing is credited."""
    await console.sign_in(Role.FINANCE)
    user = await make_user()
    name = await pay(api, user, amount_total=1)
    address = f"/unmatched/{name}"
    page = await console.get(address)
    asked = await console.send(page, address, do="close", reason="Refunded at Stripe")
    await console.send(asked, address)
    assert await balance_of(user.user_id) == 0
    assert await fetch(select(UnmatchedPayment.resolution)) == "Refunded at Stripe"
    assert [each.action for each in await trail()] == ["unmatched.close"]
    assert "It was settled" in (await console.get(address)).text


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"reason": ""}, "reason"),
        ({"reason": "for ada@example.com"}, "reason"),
        ({"user": "nobody@example.com"}, "user"),
        ({"user": str(uuid.UUID(int=9))}, "user"),
        ({"credits": "many"}, "credits"),
        ({"credits": "0"}, "credits"),
        ({"credits": "2147483648"}, "credits"),
        ({"money": "7"}, "amount_cents"),
        ({"money": "7.001"}, "money"),
    ],
    ids=str,
)
async def test_what_is_wrong_is_said_beside_the_form(
    api: Api, console: Console, fields: dict[str, str], field: str
) -> None:
    """With what was written, and nothing done."""
    await console.sign_in(Role.FINANCE)
    user = await make_user()
    name = await pay(api, user, metadata={"package_id": "501"})
    address = f"/unmatched/{name}"
    right = {"do": "credit", "reason": "Looked at", "user": str(user.user_id)}
    sent = await console.send(await console.get(address), address, **{**right, **fields})
    assert sent.status_code == 422
    assert f'role="alert" class="problem">{LABELS[field]}: ' in sent.text
    if fields.get(field):
        assert fields[field] in sent.text
    assert await trail() == []


async def test_a_free_number_of_credits_takes_two_persons(api: Api, console: Console) -> None:
    """A payment of a few dollars is no way around the rule: nor are two of them."""
    await console.sign_in(Role.FINANCE)
    user = await make_user()
    names = [await pay(api, user, metadata={"package_id": "501"}) for _ in range(2)]

    async def show(name: str, written: str) -> httpx.Response:
        page = await console.get(f"/unmatched/{name}")
        fields = {"do": "credit", "reason": "x", "credits": written}
        return await console.send(page, f"/unmatched/{name}", **fields)

    beyond = await show(names[0], "10501")  # 500 credits are what the money buys
    assert "<button>Ask for it</button>" in beyond.text
    alone = await show(names[0], "10400")
    assert "<button>Credit it</button>" in alone.text
    await console.send(alone, f"/unmatched/{names[0]}")
    asked = await show(names[1], "601")
    sent = await console.send(asked, f"/unmatched/{names[1]}")
    again = await console.send(asked, f"/unmatched/{names[1]}")
    assert again.headers["location"] == sent.headers["location"]
    assert await balance_of(user.user_id) == 10_400
    await console.sign_in(Role.ADMIN, name="Grace")
    request = sent.headers["location"].removeprefix("/console")
    page = await console.get(request)
    assert "601 credits given for the payment" in page.text
    await console.send(await console.send(page, request, do="consent"), request)
    assert await balance_of(user.user_id) == 10_400 + 601
    assert [each.action for each in await trail()] == ["unmatched.credit"] * 2


@pytest.mark.parametrize(
    "other", [{"do": "close"}, {"do": "credit", "user": "grace@example.com", "credits": "1"}]
)
async def test_a_form_that_asked_does_nothing_else(
    api: Api, console: Console, other: dict[str, str]
) -> None:
    """Filled in otherwise and sent again, it would be done without a trace."""
    await console.sign_in(Role.FINANCE)
    await make_user(email="grace@example.com")
    name = await pay(api, await make_user(), metadata={"package_id": "501"})
    address = f"/unmatched/{name}"
    page = await console.get(address)
    fields = {"reason": "x", "confirmed": "yes"}
    asked = await console.send(page, address, do="credit", credits="99999", **fields)
    assert "/approvals/" in asked.headers["location"]
    again = await console.send(page, address, **other, **fields)
    assert again.status_code == 409
    assert await fetch(select(UnmatchedPayment.status)) == "open"
    assert [each.action for each in await trail()] == ["unmatched.credit"]


async def test_what_is_neither_done_is_not_closing(api: Api, console: Console) -> None:
    """A word that is none closes no payment."""
    await console.sign_in(Role.FINANCE)
    name = await pay(api, await make_user(), amount_total=1)
    page = await console.get(f"/unmatched/{name}")
    answer = await console.send(page, f"/unmatched/{name}", do="cerdit", reason="x")
    assert answer.status_code == 422
    assert await fetch(select(UnmatchedPayment.status)) == "open"
