"""The console over groups of users: its lists have everybody, and it acts where the user is."""

import re
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest
from fastapi.routing import APIRoute
from sqlalchemy import select

from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.common.models import ConsoleAction, CreditEntry, CreditNotice, Transaction, User
from src.common.models.credit_notice import NoticeType
from src.common.notices.ids import notice_id
from src.common.routing import routed_to
from src.console.pages import ROUTERS
from src.console.pages.payments import TABS
from src.console.permissions import Role
from src.offline_stripe import OfflineStripe
from tests.api.stripe_side import buy, offline_stripe
from tests.api.stripe_side import deliver_all as deliver_offline
from tests.approvals.requests import ADA, LIMITS, a_grant, asked
from tests.credits.books import open_hold
from tests.fixtures.api import Api, StartApi, client_of
from tests.fixtures.console import Console
from tests.models.examples import a_transaction
from tests.notices.outbox import add_endpoint
from tests.sharding.people import balance_of, user_of
from tests.sharding.service import TWO, deliver_all
from tests.stripe.payments import make_event, make_session

SAYS_GROUPS = re.compile("SHARDING=schemas|NOT_ROUTED|WRONG_SHARD|went wrong on our side")
PAID, GIVEN, HELD = 500, 100, 30


@dataclass(frozen=True)
class Life:
    """A user who bought once, was given credits and holds some."""

    group: str
    user_id: uuid.UUID
    email: str
    purchase: Transaction
    notice: str
    """The newest."""
    approval_id: uuid.UUID
    """Somebody asked for a large grant."""
    unmatched: str
    """A payment of theirs that credited nobody."""


@dataclass(frozen=True)
class Place:
    """The console, the service and its Stripe, and a user in each of two groups."""

    console: Console
    api: Api
    offline: OfflineStripe
    lives: list[Life]


@pytest.fixture
async def place(start_service: StartApi) -> AsyncGenerator[Place]:
    """An administrator is signed in."""
    api = await start_service(CREDITS_MANUAL_LIMIT="200", CONSOLE_ENABLED="true")
    offline = offline_stripe(api)
    with SessionLocal.begin() as session:
        add_endpoint(session, NoticeType.GRANTED)
    lives = [await live(api, offline, group) for group in TWO]
    async with client_of(api.app) as browser:
        console = Console(browser.client)
        await console.sign_in(Role.ADMIN, name="Grace")
        yield Place(console, api, offline, lives)


async def live(api: Api, offline: OfflineStripe, group: str) -> Life:
    """One of them."""
    email = f"somebody@{group}.example.com"
    user_id = user_of(group, GIVEN, email=email)
    await buy(api, offline, user_id)
    await deliver_offline(api, offline)
    unmatched = make_session(user_id, amount_subtotal=1, amount_total=1)
    await deliver_all(api, [make_event(unmatched)])
    with routed_to(user_id), SessionLocal.begin() as session:
        execute(session, [open_hold(user_id, HELD, 3_600)])
        request = asked(session, a_grant(user_id), LIMITS).approval.approval_id
        [newest] = session.scalars(
            select(CreditNotice.number).order_by(CreditNotice.number.desc()).limit(1)
        )
        bought = session.scalars(select(Transaction)).one()
    name = notice_id(user_id, newest)
    return Life(group, user_id, email, bought, name, request, unmatched["id"])


async def seen(console: Console, address: str) -> str:
    """A page that is as it should be."""
    answer = await console.get(address)
    assert answer.status_code == 200, (address, answer.status_code, answer.text[-2_000:])
    assert not SAYS_GROUPS.search(answer.text), address
    return answer.text


def addresses_of(life: Life) -> dict[str, list[str]]:
    """Every page that is about one user, or what is theirs, by its route."""
    of_user = f"/users/{life.user_id}"
    bought = life.purchase
    names = (bought.transaction_id, bought.stripe_session_id, bought.payment_intent_id)
    return {
        "/users/{user_id}": [of_user],
        "/users/{user_id}/entries/{seq}": [f"{of_user}/entries/1"],
        "/users/{user_id}/lots": [f"{of_user}/lots"],
        "/users/{user_id}/holds": [f"{of_user}/holds"],
        "/users/{user_id}/change": [f"{of_user}/change"],
        "/users/{user_id}/entries": [f"{of_user}/entries"],
        "/users/{user_id}/give": [f"{of_user}/give"],
        "/users/{user_id}/take": [f"{of_user}/take"],
        "/users/{user_id}/entries/{seq}/reverse": [f"{of_user}/entries/1/reverse"],
        "/users/{user_id}/holds/{seq}/release": [f"{of_user}/holds/3/release"],
        "/purchases/{transaction_id}/refund": [f"/purchases/{bought.transaction_id}/refund"],
        "/payments/{name:path}": [f"/payments/{name}" for name in (*names, life.unmatched)],
        "/notices/{name}": [f"/notices/{life.notice}"],
        "/approvals/{approval_id}": [f"/approvals/{life.approval_id}"],
        "/unmatched/{stripe_object_id}": [f"/unmatched/{life.unmatched}"],
    }


LISTS = {
    "/users": "/users",
    "/payments": "/payments",
    "/notices": "/notices",
    "/unmatched": "/unmatched",
    "/approvals": "/approvals",
    "/reports/{name}": "/reports/users?time_zone=UTC",
    "/reports/{name}/file": "/reports/users/file?format=csv",
}
"""Pages that have both users, or what is theirs."""
OF_EVERYBODY = {
    "/": "/",
    "/audit": "/audit",
    "/doctor": "/doctor",
    "/inbox": "/inbox",
    "/keys": "/keys",
    "/reconciliation": "/reconciliation",
    "/reports": "/reports",
}
ELSEWHERE = {"/inbox/{event_id}", "/reconciliation/{reconciliation_id}"}
"""What is in public whoever it is about."""


async def test_every_page_is_about_whom_it_should_be(place: Place) -> None:
    """Of two groups: a list has both users, a page about one has the one; none is refused."""
    console = place.console
    pages = {route: await seen(console, address) for route, address in LISTS.items()}
    for address in OF_EVERYBODY.values():
        await seen(console, address)
    for tab in TABS:
        await seen(console, f"/payments?tab={tab}")
    for life in place.lives:
        marks = {"/notices": life.notice, "/unmatched": life.unmatched}
        marks["/approvals"] = str(life.approval_id)
        for route, page in pages.items():
            assert marks.get(route, str(life.user_id)) in page, (route, life.group)
        found = await seen(console, f"/users?q={life.email}")
        others = [each.user_id for each in place.lives if each is not life]
        assert str(life.user_id) in found
        assert str(others[0]) not in found
        for route, addresses in addresses_of(life).items():
            for address in addresses:
                page = await seen(console, address)
                assert str(others[0]) not in page, (route, address)
        of_user = await seen(console, f"/users/{life.user_id}")
        assert f"{PAID + GIVEN - HELD:,}" in of_user
        assert life.email in of_user
    visited = {*LISTS, *OF_EVERYBODY, *ELSEWHERE, *addresses_of(place.lives[0])}
    pages_there_are = {
        route.path
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute) and "GET" in (route.methods or ())
    }
    assert visited == pages_there_are
    for unknown in (f"/users/{uuid.uuid4()}", "/payments/pi_none", f"/approvals/{uuid.uuid4()}"):
        assert (await console.get(unknown)).status_code == 404


async def do(console: Console, address: str, action: str | None = None, **fields: str) -> None:
    """Fill a page's form in, confirm what is shown, and do it."""
    action = action or address
    shown = await console.send(await console.get(address), action, **fields)
    assert shown.status_code == 200, shown.text[-2_000:]
    answer = await console.send(shown, action)
    assert answer.status_code == 303, answer.text[-2_000:]
    await seen(console, answer.headers["location"].removeprefix("/console"))


async def test_what_people_do_is_done_where_the_user_is(place: Place) -> None:
    """Given, taken, undone, released, paid back, consented to, credited by hand, changed."""
    console = place.console
    for life in place.lives:
        of_user = f"/users/{life.user_id}"
        balance = PAID + GIVEN - HELD
        assert balance_of(life.user_id) == balance
        await do(console, f"{of_user}/give", amount="50", source="promo", reason="promised")
        await do(console, f"{of_user}/take", amount="10", reason="too many")
        await do(console, f"{of_user}/holds/3/release", reason="stuck")
        assert balance_of(life.user_id) == balance + 50 - 10 + HELD
        await do(console, f"{of_user}/entries/4/reverse", reason="not promised")
        assert balance_of(life.user_id) == balance - 10 + HELD
        approval = f"/approvals/{life.approval_id}"
        await do(console, approval, do="consent", note="")
        assert balance_of(life.user_id) == balance - 10 + HELD + 500
        refund = f"/purchases/{life.purchase.transaction_id}/refund"
        await do(console, refund, money="1", reason="not wanted")
        await deliver_offline(place.api, place.offline)
        assert balance_of(life.user_id) == balance - 10 + HELD + 400
        await do(
            console,
            f"/unmatched/{life.unmatched}",
            do="credit",
            user="",
            credits="7",
            money="0.01",
            currency="usd",
            reason="by hand",
        )
        assert balance_of(life.user_id) == balance - 10 + HELD + 407
        await do(console, "/notices", do="replay", notice=life.notice)
        await do(console, f"{of_user}/change", f"{of_user}/active", do="deactivate", reason="gone")
        with routed_to(life.user_id), SessionLocal() as session:
            assert not session.get_one(User, life.user_id).is_active
            assert {console.actor, ADA} <= {*session.scalars(select(CreditEntry.actor))}
    trail = await seen(console, "/audit")
    for life in place.lives:
        with SessionLocal() as session:
            actions = select(ConsoleAction.action).where(ConsoleAction.user_id == life.user_id)
            assert {"credits.give", "payments.refund", "users.change", "unmatched.credit"} <= {
                *session.scalars(actions)
            }
        assert str(life.user_id) in trail


async def test_a_payment_is_credited_to_nobody_but_whose_it_is(place: Place) -> None:
    """Whom the form names is looked for everywhere; *Close* asks after nobody."""
    console, (ada, bob) = place.console, place.lives
    address = "/unmatched/cs_of_ada"
    with routed_to(ada.user_id), SessionLocal.begin() as session:
        session.add(a_transaction(user_id=ada.user_id, stripe_session_id="cs_of_ada"))
    for user, problem in (
        (bob.email, "the payment is another user"),
        (str(bob.user_id), "the payment is another user"),
        ("who@example.com", "there is nobody with this id or address"),
        (str(uuid.uuid4()), "there is nobody with this id or address"),
    ):
        shown = await console.send(
            await console.get(address), address, do="credit", user=user, reason="by hand"
        )
        assert shown.status_code == 422
        assert problem in shown.text
        assert "Show what it will do" in shown.text
    balance = balance_of(ada.user_id)
    await do(console, address, do="close", user=bob.email, reason="by hand")
    assert balance_of(ada.user_id) == balance
