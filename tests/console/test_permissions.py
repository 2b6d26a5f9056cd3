"""Every page and action, by every role: as the matrix says, or 403."""

import re
from collections.abc import Iterator

import pytest
from fastapi.routing import APIRoute

from src.common.settings import get_settings
from src.console.application import create_console
from src.console.forms import Posted
from src.console.navigation import NAVIGATION
from src.console.people import Requirement
from src.console.permissions import MATRIX, Permission, Role, permitted
from tests.fixtures.console import PAGE, Console

EVERYBODY = (
    "overview:see users:see payments:see inbox:see notices:see unmatched:see reconciliations:see"
)
EXPECTED = {
    Role.VIEWER: f"{EVERYBODY} doctor:see",
    Role.SUPPORT: f"{EVERYBODY} doctor:see credits:give credits:take credits:reverse"
    " holds:release payments:refund inbox:change notices:replay approvals:see",
    Role.FINANCE: f"{EVERYBODY} doctor:see unmatched:settle reconciliations:run reports:see"
    " reports:download approvals:see",
    Role.ADMIN: " ".join(Permission),
}
SIGNING_IN = {
    "console_sign_in",
    "console_link",
    "console_oidc",
    "console_oidc_confirm",
    "console_oidc_callback",
    "console_sign_out",
}
"""What whoever is not signed in may ask for."""
MISSING = "00000000-0000-0000-0000-000000000000"


def routes() -> Iterator[APIRoute]:
    """Every page and action there is."""
    console = create_console(None, get_settings())
    for route in console.routes:
        if isinstance(route, APIRoute):
            yield route


def requirement_of(route: APIRoute) -> Permission | None:
    """What a route asks for."""
    found = [
        each.call.permission
        for each in route.dependant.dependencies
        if isinstance(each.call, Requirement)
    ]
    assert len(found) <= 1, route.name
    return found[0] if found else None


def test_the_matrix_is_this() -> None:
    """Who widens a role widens it here too."""
    assert {role: set(MATRIX[role]) for role in Role} == {
        role: set(map(Permission, written.split())) for role, written in EXPECTED.items()
    }


def test_every_route_asks_for_a_permission() -> None:
    """A new page or action without one fails here."""
    assert {route.name for route in routes() if requirement_of(route) is None} == SIGNING_IN


def test_every_action_takes_a_form_of_ours() -> None:
    """What changes something is POST, and has been proved to be ours; a page changes nothing."""
    for route in routes():
        methods = route.methods
        has_form = any(isinstance(each.call, Posted) for each in route.dependant.dependencies)
        assert (methods, has_form) in (({"GET"}, False), ({"POST"}, True)), route.name


def test_the_navigation_asks_for_what_the_page_asks_for() -> None:
    """Nobody is led to a page that refuses them, and no page of the matrix is hidden."""
    asked = {route.name: requirement_of(route) for route in routes()}
    for place in NAVIGATION:
        assert asked[place.route] is place.permission


def test_who_has_several_roles_may_do_what_any_may() -> None:
    """And nothing else."""
    both = permitted(frozenset({Role.SUPPORT, Role.FINANCE}))
    assert both == MATRIX[Role.SUPPORT] | MATRIX[Role.FINANCE]
    assert permitted(frozenset()) == frozenset()


@pytest.mark.parametrize("role", Role)
async def test_each_role_may_what_the_matrix_says(console: Console, role: Role) -> None:
    """Every route is asked for; who may not gets 403 before anything is looked up."""
    await console.sign_in(role)
    hidden = console.hidden(await console.get(PAGE), "/sign-in/out")
    for route in routes():
        needed = requirement_of(route)
        if needed is None:
            continue
        method = next(iter(route.methods or ["GET"]))
        address = "/console" + re.sub(r"\{[^}]*\}", MISSING, route.path)
        data = hidden if method == "POST" else None
        answer = await console.client.request(method, address, data=data)
        refused = f"the permission {needed}" in answer.text
        assert refused is (needed not in MATRIX[role]), (method, address, answer.status_code)
        assert (answer.status_code == 403) is refused, (method, address)
