"""What was paid is pending, then available, then on its way to the bank: nothing twice."""

from typing import Any

import pytest
import stripe

from src.offline_stripe.errors import StripeError
from tests.offline_stripe.shop import Clock, Shop
from tests.offline_stripe.test_control import control

DAYS = 86_400


def amounts(shop: Shop) -> tuple[int, int]:
    """What is available, and what is pending."""
    balance = shop.client.v1.balance.retrieve()
    return balance.available[0].amount, balance.pending[0].amount


def test_funds_are_available_after_two_days(shop: Shop, clock: Clock) -> None:
    """Less fees; an event says so. The card that skips the wait is available at once."""
    shop.sell(10_000)
    assert amounts(shop) == (0, 10_000 - 320)
    shop.deliver()
    clock.now += 2 * DAYS
    assert amounts(shop) == (10_000 - 320, 0)
    assert shop.event_types() == ["balance.available"]
    shop.sell(10_000, "bypassPending")
    assert amounts(shop) == (2 * (10_000 - 320), 0)


def test_no_more_than_is_available_is_paid_out(shop: Shop) -> None:
    """The balance is less at once; a payout that is cancelled or fails brings it back."""
    shop.sell(10_000, "bypassPending")
    payouts = shop.client.v1.payouts
    with pytest.raises(stripe.InvalidRequestError) as refused:
        payouts.create({"amount": 9_681, "currency": "usd"})
    assert refused.value.code == "balance_insufficient"
    made = payouts.create({"amount": 9_680, "currency": "usd"})
    assert (made.status, amounts(shop)) == ("pending", (0, 0))
    payouts.cancel(made.id)
    assert amounts(shop) == (9_680, 0)
    failing = payouts.create({"amount": 80, "currency": "usd"})
    shop.deliver()
    _, failed = control(shop.offline, f"payouts/{failing.id}/settle", status="failed")
    assert (failed["status"], failed["failure_code"]) == ("failed", "account_closed")
    assert (amounts(shop), shop.event_types()) == ((9_680, 0), ["payout.failed"])
    with pytest.raises(StripeError, match="failed cannot become paid"):
        shop.offline.settle_payout(failing.id, "paid")


def test_a_payout_arrives_after_two_days(shop: Shop, clock: Clock) -> None:
    """By itself."""
    shop.sell(10_000, "bypassPending")
    made = shop.client.v1.payouts.create({"amount": 100, "currency": "usd"})
    shop.deliver()
    clock.now += 2 * DAYS
    assert shop.client.v1.payouts.retrieve(made.id).status == "paid"
    assert shop.event_types() == ["payout.paid"]


def test_a_charge_is_captured_by_its_own_id(shop: Shop) -> None:
    """As its PaymentIntent is; once."""
    asked: Any = {"amount": 500, "currency": "usd", "capture_method": "manual"}
    intents: Any = shop.client.v1.payment_intents
    intent = intents.create({**asked, "payment_method": "pm_card_visa", "confirm": True})
    charges = shop.client.v1.charges
    taken = charges.capture(str(intent.latest_charge), {"amount": 300})
    assert (taken.captured, taken.amount_captured) == (True, 300)
    assert shop.client.v1.payment_intents.retrieve(intent.id).amount_received == 300
    with pytest.raises(stripe.InvalidRequestError) as again:
        charges.capture(taken.id)
    assert again.value.code == "charge_already_captured"


def test_a_product_without_prices_is_deleted(shop: Shop) -> None:
    """One that has a price stays."""
    products = shop.client.v1.products
    mistake = products.create({"name": "Mistake"})
    shop.deliver()
    assert products.delete(mistake.id).deleted is True
    assert shop.event_types() == ["product.deleted"]
    with pytest.raises(stripe.InvalidRequestError, match="No such product"):
        products.retrieve(mistake.id)
    kept = products.create(
        {"name": "Kept", "default_price_data": {"currency": "usd", "unit_amount": 500}}
    )
    with pytest.raises(stripe.InvalidRequestError, match="cannot be deleted"):
        products.delete(kept.id)


def test_a_customer_keeps_and_gives_up_payment_methods(shop: Shop) -> None:
    """What was given up is nobody's any more, for good."""
    v1 = shop.client.v1
    ada, bob = (v1.customers.create({}).id for _ in range(2))
    method = v1.payment_methods.attach("pm_card_visa", {"customer": ada})
    assert [each.id for each in v1.customers.payment_methods.list(ada).data] == [method.id]
    assert v1.customers.payment_methods.list(bob).data == []
    with pytest.raises(stripe.InvalidRequestError, match="No such PaymentMethod"):
        v1.customers.payment_methods.retrieve(bob, method.id)
    assert v1.payment_methods.detach(method.id).customer is None
    assert v1.customers.payment_methods.list(ada).data == []
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        v1.payment_methods.attach(method.id, {"customer": bob})
    with pytest.raises(stripe.InvalidRequestError, match="not attached"):
        v1.payment_methods.detach(method.id)
