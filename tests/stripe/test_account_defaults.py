"""Taxes, discounts and what an account decides by itself: said in our request, judged both ways."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy.orm import Session

from src.common.models.user import User
from src.common.stripe.inbox import EventAnswer
from src.offline_stripe import Object
from src.offline_stripe.account import DEFAULTS
from tests.credits.books import booked_balance
from tests.stripe.loop import Loop, only_purchase

OPPOSITE: dict[str, Any] = {
    "adaptive_pricing": True,
    "automatic_tax": True,
    "managed_payments": True,
    "payment_method_types": ["klarna"],
    "tax_behavior": "inclusive",
    "tax_percent": "7",
}
OURS = ("id", "created", "expires_at", "url", "customer", "metadata", "client_reference_id")
Shop = Callable[..., Loop]


@pytest.fixture
def shop(loop: Loop) -> Shop:
    """The loop with other settings."""

    def with_settings(**changes: Any) -> Loop:
        settings = loop.processor.settings.model_copy(update=changes)
        return Loop(loop.offline, replace(loop.processor, settings=settings))

    return with_settings


def made(shop: Loop, user: User, key: str) -> Object:
    """A session of the package of 500, as Stripe has it."""
    return shop.offline.get(shop.session_of(shop.buy(user.user_id, key=key)))


def promotion(loop: Loop, percent_off: float) -> str:
    """What a customer enters to have so much off."""
    coupon = loop.client.v1.coupons.create({"percent_off": percent_off})
    made = loop.client.v1.promotion_codes.create(
        {"promotion": {"type": "coupon", "coupon": coupon.id}}
    )
    return made.code


@pytest.mark.parametrize("allowed", [False, True])
def test_no_default_of_the_account_decides_anything(
    loop: Loop, shop: Shop, user: User, *, allowed: bool
) -> None:
    """With every default turned round, the same session comes of the same order."""
    assert set(OPPOSITE) == set(DEFAULTS)
    assert all(OPPOSITE[name] != DEFAULTS[name] for name in DEFAULTS)
    ours = shop(stripe_allow_promotion_codes=allowed, stripe_automatic_tax=allowed)
    before = made(ours, user, "before")
    loop.offline.set_defaults(**OPPOSITE)
    after = made(ours, user, "after")
    assert {name: value for name, value in after.items() if name not in OURS} == {
        name: value for name, value in before.items() if name not in OURS
    }
    assert after["allow_promotion_codes"] is allowed
    assert after["automatic_tax"]["enabled"] is allowed
    assert after["adaptive_pricing"]["enabled"] is after["managed_payments"]["enabled"] is False
    assert after["payment_method_types"] == ["card", "sepa_debit"]


@pytest.mark.parametrize("account", ["exclusive", "inclusive", "unspecified"])
@pytest.mark.parametrize(("ours", "total", "tax"), [("exclusive", 595, 95), ("inclusive", 500, 80)])
def test_a_tax_is_on_top_or_within_as_our_settings_say(
    db: Session,
    loop: Loop,
    shop: Shop,
    user: User,
    ours: str,
    account: str,
    total: int,
    tax: int,
) -> None:
    """Subtotal 500 in both cases, whatever the account's default: the package is credited."""
    loop.offline.set_defaults(tax_percent="19", tax_behavior=account)
    taxed = shop(stripe_automatic_tax=True, stripe_tax_behavior=ours)
    session = made(taxed, user, "k")
    assert session["automatic_tax"]["status"] == "requires_location_inputs"
    loop.offline.pay(session["id"])
    assert session["automatic_tax"]["status"] == "complete"
    told = (session["amount_subtotal"], session["amount_total"])
    assert (*told, session["total_details"]["amount_tax"]) == (500, total, tax)
    assert EventAnswer.UNMATCHED not in taxed.deliver(taxed.webhooks())
    assert (only_purchase(db).amount_paid_cents, booked_balance(db, user.user_id)) == (total, 500)


@pytest.mark.parametrize("behavior", ["exclusive", "inclusive"])
def test_a_session_that_an_older_release_left_open_is_credited_either_way(
    db: Session, loop: Loop, user: User, monkeypatch: pytest.MonkeyPatch, behavior: str
) -> None:
    """Our order allows taxes, and the account's default decided how: the judgement takes both."""

    def as_it_was(*arguments: Any, **named: Any) -> dict[str, Any]:
        parameters = session_parameters(*arguments, **named)
        del parameters["line_items"][0]["price_data"]["tax_behavior"]
        return parameters

    from src.common.stripe.checkout_request import session_parameters

    monkeypatch.setattr("src.common.stripe.gateway.session_parameters", as_it_was)
    loop.offline.set_defaults(tax_percent="19", tax_behavior=behavior)
    settings = loop.processor.settings.model_copy(update={"stripe_automatic_tax": True})
    old = Loop(loop.offline, replace(loop.processor, settings=settings))
    session = made(old, user, "k")
    loop.offline.pay(session["id"])
    assert session["amount_total"] == (595 if behavior == "exclusive" else 500)
    assert EventAnswer.UNMATCHED not in old.deliver(old.webhooks())
    assert booked_balance(db, user.user_id) == 500


def test_a_code_for_everything_is_a_paid_order_of_nothing(
    db: Session, loop: Loop, shop: Shop, user: User
) -> None:
    """No payment is required, none is made, and the package is credited: also where taxes are."""
    code = promotion(loop, 100)
    loop.offline.set_defaults(tax_percent="19")
    generous = shop(stripe_allow_promotion_codes=True, stripe_automatic_tax=True)
    session = made(generous, user, "k")
    loop.offline.pay(session["id"], promotion_code=code)
    assert (session["payment_status"], session["payment_intent"]) == ("no_payment_required", None)
    assert generous.deliver(generous.webhooks()).count(EventAnswer.UNMATCHED) == 0
    assert (only_purchase(db).amount_paid_cents, booked_balance(db, user.user_id)) == (0, 500)


def test_a_code_and_a_tax_on_what_is_left(db: Session, loop: Loop, shop: Shop, user: User) -> None:
    """20 % off, 19 % on top of 400."""
    code = promotion(loop, 20)
    loop.offline.set_defaults(tax_percent="19")
    generous = shop(stripe_allow_promotion_codes=True, stripe_automatic_tax=True)
    session = made(generous, user, "k")
    loop.offline.pay(session["id"], promotion_code=code)
    generous.deliver(generous.webhooks())
    assert (only_purchase(db).amount_paid_cents, booked_balance(db, user.user_id)) == (476, 500)
