"""Users: found by any part, shown with all the reasons of the balance, in so many statements."""

import re
import uuid
from html import unescape
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from src.common.async_database import run_in_async_database_transaction
from src.common.credits import ledger
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.console_action import ConsoleAction
from src.common.models.stripe_event import StripeEvent
from src.common.models.transaction import Transaction
from src.common.models.user import User
from src.console.permissions import Role
from tests.fixtures.api import Api, make_user
from tests.fixtures.console import Console
from tests.stripe.payments import make_event, make_session

HOSTILE = {
    "markup": "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&lt;",
    "formula": "=cmd|'/C calc'!A0",
    "turned": "\u202eevil\u2066\u200f",
    "long": "W" * 10_000,
    "template": "{{ 1234*2 }}{% raw %}${1234*2}",
    "lines": "a\r\n<b>\tc\x1b[2J",
}
"""What customers and Stripe may write; PostgreSQL stores no NUL."""


class _Seen(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


async def purchase_of(api: Api, user: User) -> Transaction:
    """Somebody buys 500 credits."""
    answer = await api.deliver(make_event(make_session(user)))
    assert answer.json()["status"] == "processed"
    statement = select(Transaction).where(Transaction.user_id == user.user_id)
    return await run_in_async_database_transaction(lambda db: db.scalars(statement).one())


async def spend(user: User, amount: int, **others: Any) -> None:
    """They use some."""
    await run_in_async_database_transaction(
        lambda db: ledger.spend(db, user.user_id, amount, actor="key:slides", **others)
    )


async def test_half_an_email_leads_to_the_user(console: Console) -> None:
    """From the search to the page, for everybody who may see users; nobody else is named."""
    ada, bob = await make_user(email="Ada.Lovelace@example.com"), await make_user()
    await console.sign_in(Role.VIEWER)
    page = await console.get("/users", params={"q": "lovelace@"})
    assert f'href="/console/users/{ada.user_id}"' in page.text
    assert str(bob.user_id) not in page.text
    assert (await console.get(f"/users/{ada.user_id}")).status_code == 200


async def test_filters_and_pages(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page says where the next begins, and keeps what was asked for."""
    monkeypatch.setattr("src.console.pages.users.SHOWN", 2)
    people = [await make_user(email=f"page{number}@example.com") for number in range(3)]
    await console.sign_in(Role.SUPPORT)
    first = await console.get("/users", params={"q": "page", "never_bought": "true"})
    [following] = re.findall(r'rel="next" href="([^"]+)"', first.text)
    assert "never_bought=true" in following
    second = await console.client.get(unescape(following))
    shown = re.findall(r"/console/users/([0-9a-f-]{36})", first.text + second.text)
    assert sorted(shown) == sorted(str(each.user_id) for each in people)
    assert "No user is as asked for" in (await console.get("/users?q=page&owing=true")).text


@pytest.mark.parametrize("q", ["\x00", "x" * 321])
async def test_what_cannot_be_looked_for_is_said_above_the_form(console: Console, q: str) -> None:
    """With what was written still in the form."""
    await console.sign_in(Role.VIEWER)
    page = await console.get("/users", params={"q": f"a{q}"})
    assert page.status_code == 422
    assert 'aria-invalid="true"' in page.text


async def test_a_user_s_page_says_why_the_balance_is_what_it_is(api: Api, console: Console) -> None:
    """Balance, lots and what became of them, debts, entries, purchases, holds, preferences."""
    user = await make_user(preferences={"company": "Engines", "theme": "dark"})
    bought = await purchase_of(api, user)
    await spend(user, 120, key="deck", reference="deck 1")
    await run_in_async_database_transaction(
        lambda db: ledger.open_hold(
            db, user.user_id, 30, key="h", actor="key:slides", expires_in_seconds=99
        )
    )
    await console.sign_in(Role.VIEWER)
    await console.get(f"/users/{user.user_id}")
    page = (await console.get(f"/users/{user.user_id}")).text  # which tells of the first time
    seen = "\n".join(_Seen(page).texts)
    assert re.search(r"Balance\s+350\s+credits", seen)
    assert "30 in open holds" in seen
    row = re.search(r"lots?.*?>1</a>.*?</tr>", page, re.DOTALL)
    assert row is not None
    assert "deck 1" in seen
    assert f"/console/payments/{bought.transaction_id}" in page
    assert "Engines" in seen
    assert "users.see" in seen
    assert page.count("data-chart=") == 2
    entry = await console.get(f"/users/{user.user_id}/entries/2")
    assert "deck" in entry.text
    assert ">-120<" in entry.text
    only = (await console.get(f"/users/{user.user_id}/entries?kind=spend")).text
    assert "/entries/2" in only
    assert "/entries/3" not in only
    for path in ("lots", "holds", "entries"):
        assert (await console.get(f"/users/{user.user_id}/{path}")).status_code == 200
    assert (await console.get(f"/users/{user.user_id}/entries/9")).status_code == 404
    assert (await console.get(f"/users/{uuid.uuid4()}")).status_code == 404


async def test_that_somebody_was_looked_at_is_in_the_audit_trail(
    api: Api, console: Console
) -> None:
    """Found, opened, and each list; nobody's address among it, whatever was typed."""
    user = await make_user(email="ada@example.com")
    await spend_of_a_gift(user)
    bought = await purchase_of(api, user)
    await console.sign_in(Role.VIEWER)
    await console.get("/users?q=ada@example.com")
    for path in ("", "/entries", "/entries/1", "/lots", "/holds"):
        await console.get(f"/users/{user.user_id}{path}")
    await console.get(f"/payments/{bought.payment_intent_id}")
    rows = await run_in_async_database_transaction(
        lambda db: db.execute(
            select(ConsoleAction.action, ConsoleAction.user_id, ConsoleAction.target)
            .where(ConsoleAction.actor == console.actor, ConsoleAction.action != "sign_in")
            .order_by(ConsoleAction.action_id)
        ).all()
    )
    assert [(each.action, each.target) for each in rows] == [
        ("users.search", None),
        ("users.see", None),
        ("users.see", "entries"),
        ("users.see", "entry 1"),
        ("users.see", "lots"),
        ("users.see", "holds"),
        ("payments.see", str(bought.transaction_id)),
    ]
    assert {each.user_id for each in rows[1:]} == {user.user_id}


async def spend_of_a_gift(user: User) -> None:
    """Ten given, one used."""
    await run_in_async_database_transaction(
        lambda db: ledger.grant(db, user.user_id, 10, key="gift", actor="key:slides")
    )
    await spend(user, 1, key="one")


@pytest.mark.parametrize("kind", HOSTILE)
async def test_what_customers_and_stripe_write_is_shown_as_text(
    api: Api, console: Console, kind: str
) -> None:
    """No tag, no attribute and no turned line comes of it; formulas stay what they are."""
    written = HOSTILE[kind]
    user = await make_user(
        first_name=written,
        last_name=written,
        preferences={"company": written[:500], written[:100]: [written]},
        stripe_customer_id=f"cus_{written[:50]}",
        language_preference=written,
    )
    bought = await purchase_of(api, user)
    await spend(
        user, 1, key=written[:255], reference=written[:255], metadata={written[:9]: written}
    )
    await run_in_async_database_transaction(lambda db: hostile_payment(db, user, written))
    await console.sign_in(Role.ADMIN)
    pages = [
        f"/users?q={user.user_id}",
        f"/users/{user.user_id}",
        f"/users/{user.user_id}/entries",
        f"/users/{user.user_id}/entries/2",
        f"/payments/{bought.transaction_id}",
        "/payments?tab=orders",
    ]
    for path in pages:
        answer = await console.get(path)
        assert answer.status_code == 200, path
        check_harmless(answer, path)


def hostile_payment(db: Session, user: User, written: str) -> None:
    """An order and an event as Stripe may tell of them."""
    db.execute(
        text("UPDATE stripe_events SET type = :text, error = :text, remark = :text"),
        {"text": written},
    )
    db.add(
        CheckoutOrder(
            user_id=user.user_id,
            idempotency_key=written[:255],
            request_digest=bytes(32),
            package_id=written,
            credits=5,
            amount_cents=5,
            currency="usd",
            livemode=False,
            success_url=written,
            cancel_url=written,
        )
    )
    assert db.scalars(select(StripeEvent.error).limit(1)).one() == written


def check_harmless(answer: httpx.Response, path: str) -> None:
    """Of the scripts and images of a page each is ours, and nothing turns or hides its text."""
    seen = _Seen(answer.text)
    for tag, attributes in seen.tags:
        assert tag not in {"img", "iframe", "b", "object"}, path
        assert not any(name.startswith("on") for name in attributes), path
        if tag == "script":
            assert str(attributes["src"]).startswith("/console/static/"), path
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f\x1b]", answer.text), path
