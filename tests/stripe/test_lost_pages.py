"""Pay pages whose answer was lost: an order is asked for again, with whatever settings."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.cli.reach import in_database
from src.common.exceptions import DatabaseBusy
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.user import User
from src.common.stripe import checkout
from src.common.stripe.checkout import PayPage, plan_checkout, start_checkout
from src.common.stripe.gateway import Gateway
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.wire import CheckoutSession
from tests.credits.books import booked_balance
from tests.stripe.loop import Loop


def changed(loop: Loop, **changes: Any) -> Loop:
    """The service after a deployment: other settings, the same Stripe and database."""
    settings = loop.processor.settings.model_copy(update=changes)
    return Loop(loop.offline, replace(loop.processor, settings=settings))


def lose_a_page(loop: Loop, user: User) -> str:
    """Have Stripe make a page that nothing of is noted, nor anybody told; its session."""

    def fail(*_arguments: Any, **_named: Any) -> None:
        raise DatabaseBusy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkout, "open_order", fail)
        with pytest.raises(DatabaseBusy):
            loop.buy(user.user_id)
    [session] = loop.offline.account.all("checkout.session")
    return str(session["id"])


def order_status(db: Session) -> str:
    """How far the one order has come."""
    db.expire_all()
    return db.scalars(select(CheckoutOrder.status)).one()


def test_asked_for_in_the_same_way_it_is_the_same_page(loop: Loop, user: User) -> None:
    """Stripe's idempotency key leads to the page that was lost."""
    lost = lose_a_page(loop, user)
    assert loop.session_of(loop.buy(user.user_id)) == lost
    assert len(list(loop.offline.account.all("checkout.session"))) == 1


@pytest.mark.parametrize(
    "changes",
    [{"stripe_tax_behavior": "inclusive"}, {"stripe_payment_method_types": "card,link"}],
    ids=lambda changes: next(iter(changes)),
)
def test_after_a_change_of_settings_an_order_has_a_page(
    db: Session, loop: Loop, user: User, changes: dict[str, Any]
) -> None:
    """Another, which alone is paid; the lost one ends, and the order is not what has expired."""
    lost = lose_a_page(loop, user)
    after = changed(loop, **changes)
    page = after.buy(user.user_id)
    session_id = after.session_of(page)
    assert session_id != lost
    assert after.buy(user.user_id) == replace(page, replayed=True)

    loop.client.v1.checkout.sessions.expire(lost)
    assert after.deliver(after.webhooks())[-1] is EventAnswer.ALREADY_PROCESSED
    assert order_status(db) == "open"
    loop.offline.pay(session_id)
    after.deliver(after.webhooks())
    assert (order_status(db), booked_balance(db, user.user_id)) == ("paid", 500)


def test_two_releases_asked_at_once_tell_one_page(
    loop: Loop, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one waits for Stripe the other makes and tells a page: the first tells the same."""
    new = changed(loop, stripe_tax_behavior="inclusive")
    told: list[PayPage] = []
    create = Gateway.create_checkout_session

    async def create_while_the_other_does(
        self: Gateway, *asked: Any, **how: Any
    ) -> CheckoutSession:
        page = await create(self, *asked, **how)
        if how["settings"] is loop.processor.settings:
            settings = new.processor.settings
            plan = plan_checkout(settings, user.user_id, "500", key="k")
            told.append(await start_checkout(in_database, self, settings, plan))
        return page

    monkeypatch.setattr(Gateway, "create_checkout_session", create_while_the_other_does)
    first = loop.buy(user.user_id)
    assert len(list(loop.offline.account.all("checkout.session"))) == 2
    assert told == [replace(first, replayed=False)]
