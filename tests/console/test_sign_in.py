"""Coming in by a link, once; going, for good."""

import asyncio
import datetime as dt
import re

import pytest
import structlog
import time_machine
from sqlalchemy import func, select, update

from src.common.async_database import run_in_async_database_transaction
from src.common.models.console_action import ConsoleAction
from src.common.models.console_session import ConsoleSession
from src.console import sessions
from src.console.permissions import Role
from tests.fixtures.api import StartApi, fetch
from tests.fixtures.console import PAGE, Console

COOKIE = "flashslides_console"


async def make_link(name: str = "Ada") -> str:
    """The token of a link for somebody."""
    identity = sessions.local_identity(name)
    return await run_in_async_database_transaction(
        lambda session: sessions.make_link(session, identity)
    )


async def test_who_is_not_signed_in_is_led_to_the_sign_in(console: Console) -> None:
    """And from `/console` to its first page."""
    assert (await console.client.get("/console")).headers["location"] == "/console/"
    first = await console.get("/?a=1")
    assert first.status_code == 303
    assert first.headers["location"] == "/console/sign-in?next=%2F%3Fa%3D1"
    assert (await console.get("/sign-in")).status_code == 200


async def test_a_link_signs_in_once(console: Console) -> None:
    """Its token is in no later address, referrer or row."""
    token = await make_link()
    came = await console.get("/sign-in/link", params={"token": token})
    assert (came.status_code, came.headers["location"]) == (303, "/console/")
    assert came.headers["referrer-policy"] == "no-referrer"
    assert (await console.get(PAGE)).status_code == 200
    console.client.cookies.clear()
    again = await console.get("/sign-in/link", params={"token": token})
    assert again.status_code == 403
    assert "used already" in again.text
    hashes = await run_in_async_database_transaction(
        lambda session: session.scalars(select(ConsoleSession.secret_hash)).all()
    )
    assert not [each for each in hashes if token.encode() in each]


async def test_a_link_is_no_session_and_a_session_no_link(console: Console) -> None:
    """The secret in one address or cookie opens nothing in the other place."""
    token = await make_link()
    known = await run_in_async_database_transaction(lambda session: sessions.find(session, token))
    assert known is None
    secret = await run_in_async_database_transaction(
        lambda session: sessions.begin(session, sessions.local_identity("Ada"))
    )
    assert (await console.get("/sign-in/link", params={"token": secret})).status_code == 403


async def test_of_two_who_follow_a_link_at_once_one_comes_in(start_api: StartApi) -> None:
    """Exactly one of eight."""
    api = await start_api()
    token = await make_link()
    answers = await asyncio.gather(
        *(api.client.get("/console/sign-in/link", params={"token": token}) for _ in range(8))
    )
    assert sorted(each.status_code for each in answers) == [303, *[403] * 7]


async def test_a_link_lasts_an_hour(console: Console) -> None:
    """By the database's clock."""
    token = await make_link()
    await run_in_async_database_transaction(
        lambda session: session.execute(
            update(ConsoleSession).values(
                created_at=func.now() - dt.timedelta(hours=2),
                expires_at=func.now() - dt.timedelta(hours=1),
            )
        )
    )
    assert (await console.get("/sign-in/link", params={"token": token})).status_code == 403


async def test_a_session_lasts_eight_hours(console: Console) -> None:
    """The row's clock decides, and the cookie is not believed for longer either."""
    await console.sign_in(Role.VIEWER)
    lasts = func.extract("epoch", ConsoleSession.expires_at - func.clock_timestamp())
    expires_in = dt.timedelta(seconds=float(await fetch(select(lasts))))
    assert dt.timedelta(hours=7, minutes=59) < expires_in <= dt.timedelta(hours=8)
    with time_machine.travel(dt.datetime.now(dt.UTC) + dt.timedelta(hours=8, seconds=1)):
        assert (await console.get(PAGE)).status_code == 303
    assert (await console.get(PAGE)).status_code == 200
    await run_in_async_database_transaction(
        lambda session: session.execute(
            update(ConsoleSession).values(
                created_at=func.now() - dt.timedelta(hours=9),
                expires_at=func.now() - dt.timedelta(hours=1),
            )
        )
    )
    assert (await console.get(PAGE)).status_code == 303


async def test_the_cookie_is_kept_from_scripts_and_other_sites(console: Console) -> None:
    """HttpOnly and SameSite; signed, so that a changed one is none."""
    came = await console.sign_in(Role.VIEWER)
    written = came.headers["set-cookie"]
    assert re.search(r"; path=/; .*httponly; samesite=lax", written, re.IGNORECASE)
    value = console.client.cookies[COOKIE]
    console.client.cookies.clear()
    console.client.cookies.set(COOKIE, ("a" if value[0] != "a" else "b") + value[1:])
    assert (await console.get(PAGE)).status_code == 303


async def test_who_signs_out_is_out_wherever_the_cookie_is(console: Console) -> None:
    """A copy of it opens nothing any more; the trail has it, once however often it is sent."""
    await console.sign_in(Role.VIEWER)
    copy = console.client.cookies[COOKIE]
    page = await console.get(PAGE)
    for _ in range(2):
        out = await console.send(page, "/sign-in/out")
        assert (out.status_code, out.headers["location"]) == (303, "/console/sign-in")
        console.client.cookies.clear()
        console.client.cookies.set(COOKIE, copy)
    gone = await fetch(select(ConsoleAction).where(ConsoleAction.action == "sign_out"))
    assert (gone.actor, gone.after) == (console.actor, {"because": "the person signed out"})
    assert (await console.get(PAGE)).status_code == 303


async def test_a_session_from_before_the_sign_in_is_not_taken_over(console: Console) -> None:
    """Whoever planted a cookie in the browser does not know the session that begins."""
    await console.sign_in(Role.VIEWER, name="Mallory")
    planted = console.client.cookies[COOKIE]
    token = await make_link("Ada")
    await console.get("/sign-in/link", params={"token": token})
    assert console.client.cookies[COOKIE] != planted
    assert "Ada" in (await console.get(PAGE)).text
    console.client.cookies.clear()
    console.client.cookies.set(COOKIE, planted)
    assert "Mallory" in (await console.get(PAGE)).text


@pytest.mark.parametrize(
    ("wanted", "led_to"),
    [
        ("/nowhere?a=1", "/console/nowhere?a=1"),
        ("//elsewhere.example", "/console/"),
        ("https://elsewhere.example", "/console/"),
        ("/\\elsewhere.example", "/console/"),
        ("/a\r\nSet-Cookie: b=c", "/console/"),
        ("elsewhere.example", "/console/"),
    ],
)
async def test_a_sign_in_leads_back_and_to_no_other_host(
    console: Console, wanted: str, led_to: str
) -> None:
    """Whatever somebody writes into a link to the sign-in."""
    await console.get("/sign-in", params={"next": wanted})
    came = await console.get("/sign-in/link", params={"token": await make_link()})
    assert came.headers["location"] == led_to


async def test_every_sign_in_is_in_the_audit_trail(console: Console) -> None:
    """With the roles, and without a name."""
    await console.sign_in(Role.SUPPORT, Role.FINANCE)
    row = await fetch(select(ConsoleAction))
    assert (row.actor, row.action) == (console.actor, "sign_in")
    assert row.after == {"roles": ["finance", "support"]}


async def test_the_log_has_no_token(console: Console) -> None:
    """The line of the request says where, and not with what."""
    token = await make_link()
    with structlog.testing.capture_logs() as lines:
        await console.get("/sign-in/link", params={"token": token})
    [line] = [each for each in lines if each["event"] == "Request"]
    assert line["path"] == "/console/sign-in/link"
    assert token not in str(lines)
