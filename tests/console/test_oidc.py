"""Coming in at an identity provider, which runs in the test; and being out when the role goes."""

import datetime as dt
import re
import uuid
import warnings
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from html import unescape
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, update

from src.common.async_database import run_in_async_database_transaction
from src.common.exceptions import Forbidden
from src.common.models.console_action import ConsoleAction
from src.common.models.console_session import ConsolePerson, ConsoleSession
from src.common.settings import load_settings
from src.console.oidc import identity_of
from src.console.permissions import Role
from src.console.sessions import person_id_of
from tests.fixtures.api import StartApi, fetch
from tests.fixtures.console import PAGE, Console

pytestmark = pytest.mark.filterwarnings(  # of what the provider is made of
    "ignore::authlib.deprecate.AuthlibDeprecationWarning",
    "ignore:get_jwt_config:DeprecationWarning",
)

SIGN_IN = {
    "CONSOLE_URL": "http://localhost:8000/console",
    "CONSOLE_SESSION_SECRET": "only-the-tests-know-this-secret-of-theirs",
    "CONSOLE_OIDC_CLIENT_ID": "flashslides",
    "CONSOLE_OIDC_CLIENT_SECRET": "hush",
    "CONSOLE_OIDC_EMAIL_DOMAINS": "example.com",
}
CLAIMS: Mapping[str, Any] = {"email": "ada@example.com", "email_verified": True}
PEOPLE: Mapping[str, Mapping[str, Any]] = {
    "ada": {**CLAIMS, "flashslides_role": "support"},
    "grace": {**CLAIMS, "email": "grace@example.com", "flashslides_role": ["finance", "viewer"]},
    "nobody": {**CLAIMS, "flashslides_role": "gardener"},
    "stranger": {**CLAIMS, "email": "x@elsewhere.example", "flashslides_role": "admin"},
    "unverified": {**CLAIMS, "email_verified": False, "flashslides_role": "admin"},
}


@dataclass
class Provider:
    """The provider, and a browser of its own there."""

    issuer: str
    users: list[Any]

    async def agree(self, sent_there: httpx.Response, subject: str) -> str:
        """Sign in there as somebody; where that leads back to, below the console's host."""
        assert sent_there.status_code == 302, sent_there.text
        # The provider has no sessions: where it may not show its page, it knows nobody.
        page = sent_there.headers["location"].replace("&prompt=none", "")
        async with httpx.AsyncClient(trust_env=False) as browser:
            agreed = await browser.post(page, data={"sub": subject})
        assert agreed.status_code == 302, agreed.text
        back: str = agreed.headers["location"]
        assert back.startswith("http://localhost:8000/console/sign-in/callback?")
        return back.removeprefix("http://localhost:8000/console")


@pytest.fixture
def provider() -> Generator[Provider]:
    """An identity provider with `PEOPLE`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, about its own library
        from oidc_provider_mock import (  # pyright: ignore[reportMissingTypeStubs]
            User,
            run_server_in_thread,
        )
    users = [User(sub=subject, claims=dict(claims)) for subject, claims in PEOPLE.items()]
    with run_server_in_thread(user_claims=users) as server:
        yield Provider(f"http://localhost:{server.server_port}", users)


@pytest.fixture
async def console(start_api: StartApi, provider: Provider) -> Console:
    """A browser at a console whose people sign in at the provider."""
    api = await start_api(**SIGN_IN, CONSOLE_OIDC_ISSUER=provider.issuer)
    return Console(api.client)


async def come_in(console: Console, provider: Provider, subject: str) -> httpx.Response:
    """There and back again."""
    there = await console.get("/sign-in/oidc")
    return await console.get(await provider.agree(there, subject))


async def test_who_has_a_role_comes_in_with_it(console: Console, provider: Provider) -> None:
    """By the claim's one value or several; the person's id is made of issuer and subject."""
    assert "Sign in with your organisation" in (await console.get("/sign-in")).text
    came = await come_in(console, provider, "ada")
    assert (came.status_code, came.headers["location"]) == (303, "/console/")
    assert "ada@example.com" in (await console.get(PAGE)).text
    person = await fetch(select(ConsolePerson))
    assert person.person_id == person_id_of(provider.issuer, "ada")
    assert (person.issuer, person.subject) == (provider.issuer, "ada")
    await come_in(console, provider, "grace")
    roles = await fetch(
        select(ConsoleSession.roles).where(
            ConsoleSession.person_id == person_id_of(provider.issuer, "grace")
        )
    )
    assert roles == ["finance", "viewer"]


@pytest.mark.parametrize(
    ("subject", "because"),
    [
        ("nobody", "You have no role here"),
        ("stranger", "This address may not come in"),
        ("unverified", "This address may not come in"),
    ],
)
async def test_others_do_not_come_in(
    console: Console, provider: Provider, subject: str, because: str
) -> None:
    """Without a role, of another domain, or with an address that nobody verified."""
    came = await come_in(console, provider, subject)
    assert came.status_code == 403
    assert because in came.text
    assert (await console.get(PAGE)).status_code == 303


async def test_what_the_provider_did_not_say_is_refused(
    console: Console, provider: Provider
) -> None:
    """Another browser's answer, one's own a second time, one without a state, an error."""
    back = await provider.agree(await console.get("/sign-in/oidc"), "ada")
    cookies = dict(console.client.cookies)
    console.client.cookies.clear()
    assert (await console.get(back)).status_code == 502  # whoever is led there has asked for none
    console.client.cookies.update(cookies)
    assert (await console.get(re.sub("state=[^&]*", "state=x", back))).status_code == 502
    assert (await console.get("/sign-in/callback?error=access_denied")).status_code == 502
    assert (await console.get(back)).status_code == 303
    assert (await console.get(back)).status_code == 502


async def age(minutes: int) -> None:
    """Let time pass since the provider confirmed all sessions."""
    await run_in_async_database_transaction(
        lambda session: session.execute(
            update(ConsoleSession).values(
                confirmed_at=func.clock_timestamp() - dt.timedelta(minutes=minutes)
            )
        )
    )


async def confirmed(console: Console) -> httpx.Response:
    """A page after a while: on to the provider, which is to show no page."""
    led = await console.get("/?a=1")
    assert led.headers["location"] == "/console/sign-in/confirm?next=%2F%3Fa%3D1"
    there = await console.client.get(led.headers["location"])
    assert "prompt=none" in there.headers["location"]
    return there


async def test_after_ten_minutes_the_provider_is_asked_again(
    console: Console, provider: Provider
) -> None:
    """Whoever has a role still goes on where they were, with the same session and forms."""
    await come_in(console, provider, "ada")
    page = await console.get(PAGE)
    await age(9)
    assert (await console.get(PAGE)).status_code == 200
    await age(11)
    back = await provider.agree(await confirmed(console), "ada")
    assert (await console.get(back)).headers["location"] == "/console/?a=1"
    assert (await console.get(PAGE)).status_code == 200
    assert (await console.send(page, "/sign-in/out")).status_code == 303


async def test_who_lost_the_role_is_out(console: Console, provider: Provider) -> None:
    """At the next confirmation; a copy of the cookie opens nothing, nor does another browser's."""
    await come_in(console, provider, "ada")
    console.client.cookies.clear()
    await come_in(console, provider, "ada")
    assert await fetch(select(ConsolePerson.roles)) == ["support"]
    copy = dict(console.client.cookies)
    await age(11)
    [ada] = [each for each in provider.users if each.sub == "ada"]
    ada.claims["flashslides_role"] = None
    back = await provider.agree(await confirmed(console), "ada")
    assert (await console.get(back)).status_code == 403
    assert await fetch(select(ConsolePerson.roles)) == []
    assert await fetch(select(func.count()).where(ConsoleSession.ended_at.is_(None))) == 0
    assert await fetch(select(ConsoleAction.after).where(ConsoleAction.action == "sign_out")) == {
        "because": "the provider names no role"
    }
    console.client.cookies.clear()
    console.client.cookies.update(copy)
    assert (await console.get(PAGE)).headers["location"].startswith("/console/sign-in?")


async def test_who_is_signed_out_there_is_out_here(console: Console, provider: Provider) -> None:
    """Where the provider would have to show a page, the session ends and a sign-in begins."""
    await come_in(console, provider, "ada")
    await age(11)
    there = await confirmed(console)
    [state] = re.findall(r"state=([^&]+)", unescape(there.headers["location"]))
    back = await console.get(f"/sign-in/callback?error=login_required&state={state}")
    assert back.headers["location"] == "/console/sign-in/oidc"
    assert await fetch(select(ConsoleSession.ended_at)) is not None


def settings_of(issuer: str) -> Any:
    """Settings of a console whose people sign in where users do, too."""
    facts = {name.lower(): value for name, value in SIGN_IN.items()}
    return load_settings(**facts, console_oidc_issuer=issuer, auth_jwt_issuer="https://id.test")


def test_a_user_who_works_here_is_one_actor() -> None:
    """Where both sign in at the same issuer; elsewhere a user's id is nobody's here."""
    user_id = uuid.uuid4()
    claims = {
        **CLAIMS,
        "iss": "https://id.test",
        "sub": str(user_id),
        "flashslides_role": "admin",
    }
    settings = settings_of("https://id.test")
    assert identity_of(claims, settings).person_id == user_id
    assert identity_of(claims, settings).roles == {Role.ADMIN}
    other = {**claims, "iss": "https://other.test"}
    assert identity_of(other, settings).person_id == person_id_of(
        "https://other.test", str(user_id)
    )


@pytest.mark.parametrize(
    "email", ["ada@example.com.elsewhere.example", "ada@notexample.com", "example.com", "", "@"]
)
def test_a_domain_is_the_whole_of_it(email: str) -> None:
    """Neither a suffix nor a prefix will do."""
    claims = {**CLAIMS, "email": email, "iss": "i", "sub": "s", "flashslides_role": "admin"}
    with pytest.raises(Forbidden):
        identity_of(claims, settings_of("https://id.test"))


@pytest.mark.parametrize("query", ["", "&state=", "&state=guessed"])
async def test_no_link_of_another_page_signs_anybody_out(
    console: Console, provider: Provider, query: str
) -> None:
    """An error counts only as the answer to what this browser asked the provider."""
    await come_in(console, provider, "ada")
    back = await console.get(f"/sign-in/callback?error=login_required{query}")
    assert back.status_code == 502
    assert (await console.get(PAGE)).status_code == 200
