"""What leads to an action is shown to those who may do it, and where there is something to do."""

import re
import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import Request

from src.common.settings import get_settings
from src.console.application import create_console
from src.console.people import Person
from src.console.permissions import Role
from src.console.rendering import render

USER = SimpleNamespace(user_id=uuid.UUID(int=1))
BOUGHT = SimpleNamespace(transaction_id=uuid.UUID(int=2))
OF_USER = f"/console/users/{USER.user_id}"
CHANGE = f"{OF_USER}/change"
"""For administrators only."""
REFUND = f"/console/purchases/{BOUGHT.transaction_id}/refund"


def entry(kind: str, purchase: Any = None) -> dict[str, Any]:
    """What an entry's page has."""
    return {"user": USER, "entry": SimpleNamespace(seq=3, kind=kind, purchase=purchase)}


def hold(status: str) -> dict[str, Any]:
    """What a row of holds has."""
    return {"user": USER, "hold": SimpleNamespace(seq=3, status=status)}


def payment(purchase: Any) -> dict[str, Any]:
    """What a payment's page has."""
    return {"payment": SimpleNamespace(purchase=purchase)}


@pytest.mark.parametrize(
    ("template", "context", "links"),
    [
        ("user_actions.html", {"user": USER}, [f"{OF_USER}/give", f"{OF_USER}/take", CHANGE]),
        ("entry_actions.html", entry("spend"), [f"{OF_USER}/entries/3/reverse"]),
        ("entry_actions.html", entry("grant"), [f"{OF_USER}/entries/3/reverse"]),
        ("entry_actions.html", entry("grant", BOUGHT), [REFUND]),
        ("entry_actions.html", entry("lot_expiry"), []),
        ("hold_actions.html", hold("open"), [f"{OF_USER}/holds/3/release"]),
        ("hold_actions.html", hold("captured"), []),
        ("payment_actions.html", payment(SimpleNamespace(transaction=BOUGHT)), [REFUND]),
        ("payment_actions.html", payment(None), []),
    ],
)
@pytest.mark.parametrize("role", Role)
def test_links_are_shown_to_those_who_may(
    role: Role, template: str, context: dict[str, Any], links: list[str]
) -> None:
    """Support and administrators, to whom more is; viewers and finance see none."""
    scope: dict[str, Any] = {"type": "http", "path": "/", "root_path": "/console", "session": {}}
    scope["app"] = create_console(None, get_settings())
    person = Person("user:1", "Ada", frozenset({role}))
    shown = render(Request(scope), person, template, **context)
    found = re.findall(r'href="([^"]+)"', bytes(shown.body).decode())
    of_support = [link for link in links if link != CHANGE]
    assert found == {Role.ADMIN: links, Role.SUPPORT: of_support}.get(role, [])
