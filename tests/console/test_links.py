"""No page leads to what its viewer may not open."""

import re
from html import unescape
from types import SimpleNamespace
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest

from src.common.async_database import run_in_async_database_transaction
from src.console.overview_figures import CHECKS, KnownFigures, read_figures
from src.console.permissions import Role
from tests.approvals.requests import NOTHING_ALONE, a_grant, asked
from tests.credits.books import make_user as booked_user
from tests.fixtures.api import StartApi, make_user
from tests.fixtures.console import Console
from tests.stripe.payments import make_event, make_session

_LINK = re.compile(r'<a [^>]*?href="([^"]*)"')
_ID = re.compile(r"/(?:[0-9a-f-]{36}|\d+|(?:evt|cs|pi)_\w+)(?=/|$)")
PAGES_MAX = 200


@pytest.fixture
async def served(start_api: StartApi, monkeypatch: pytest.MonkeyPatch) -> Console:
    """A console where everything is wrong that can be, and something is on every list."""
    api = await start_api(STRIPE_MODE="test")
    user = await make_user()
    await api.deliver(make_event(make_session(user)))
    await api.deliver(make_event(make_session(user, amount_total=1)))
    await run_in_async_database_transaction(
        lambda session: asked(session, a_grant(booked_user(session).user_id), NOTHING_ALONE)
    )
    figures = read_figures(api.app.state.settings)
    wrong: dict[str, Any] = {
        name: SimpleNamespace(name=name, status="fail", seen="wrong") for name in CHECKS
    }

    async def get(_known: KnownFigures) -> SimpleNamespace:
        return SimpleNamespace(**{**vars(figures), "checks": wrong})

    monkeypatch.setattr(KnownFigures, "get", get)
    return Console(api.client)


async def test_nobody_is_led_to_what_they_may_not_open(served: Console) -> None:
    """From the overview on, by every link, one page of each kind, in every role."""
    for role in Role:
        await served.sign_in(role)
        seen: set[str] = set()
        waiting = ["/console/"]
        while waiting and len(seen) < PAGES_MAX:
            address = waiting.pop()
            kind = _ID.sub("/ID", urlsplit(address).path)
            if kind in seen:
                continue
            seen.add(kind)
            page = await served.client.get(address)
            assert page.status_code == 200, (role, address, page.status_code)
            if page.headers["content-type"].startswith("text/html"):
                links = (urljoin(address, unescape(found)) for found in _LINK.findall(page.text))
                waiting += [each for each in links if each.startswith("/console/")]
        assert "/console/doctor" in seen
        assert ("/console/approvals" in seen) is (role is not Role.VIEWER)
        assert "/console/unmatched/ID" in seen
