"""Coupons and promotion codes take off what Stripe would, where and as often as it would."""

from typing import Any

import pytest
import stripe

from src.offline_stripe.errors import StripeError
from tests.offline_stripe.shop import START, Clock, Shop
from tests.offline_stripe.test_control import control


def promotion(shop: Shop, *, coupon: Any = None, **more: Any) -> stripe.PromotionCode:
    """A promotion code of a coupon for half the price, or of another."""
    worth: Any = coupon or {"percent_off": 50.0}
    made = shop.client.v1.coupons.create(worth)
    parameters: Any = {"promotion": {"type": "coupon", "coupon": made.id}, **more}
    return shop.client.v1.promotion_codes.create(parameters)


def test_a_code_is_entered_in_any_letters_and_shown_before_it_is_paid(shop: Shop) -> None:
    """Once: the session says what it takes off; what is charged is the rest."""
    code = promotion(shop, code="Summer26")
    session = shop.offer(allow_promotion_codes=True)
    _, entered = control(
        shop.offline, f"sessions/{session.id}/enter_code", promotion_code="sUMMER26"
    )
    assert (entered["amount_subtotal"], entered["amount_total"]) == (500, 250)
    assert entered["total_details"]["amount_discount"] == 250
    assert entered["discounts"] == [{"coupon": code.promotion.coupon, "promotion_code": code.id}]
    with pytest.raises(StripeError, match="takes no promotion code"):
        shop.offline.enter_code(session.id, "Summer26")
    assert shop.charge_of(shop.offline.pay(session.id))["amount"] == 250
    assert shop.client.v1.promotion_codes.retrieve(code.id).times_redeemed == 1


def test_a_code_for_everything_leaves_nothing_to_pay(shop: Shop) -> None:
    """Entered and paid at once."""
    code = promotion(shop, coupon={"percent_off": 100}).code
    session = shop.offer(allow_promotion_codes=True)
    paid = control(shop.offline, f"sessions/{session.id}/pay", promotion_code=code)[1]
    assert (paid["amount_total"], paid["payment_status"]) == (0, "no_payment_required")


def test_a_code_is_for_sessions_that_take_one(shop: Shop) -> None:
    """Others refuse it, and stay as they are; so does one whose rest is too little to charge."""
    code = promotion(shop).code
    session = shop.offer()
    with pytest.raises(StripeError, match="takes no promotion code"):
        shop.offline.pay(session.id, promotion_code=code)
    with pytest.raises(StripeError, match="code is invalid"):
        shop.offline.pay(shop.offer(allow_promotion_codes=True).id, promotion_code="other")
    small = shop.offer(80, allow_promotion_codes=True)
    with pytest.raises(StripeError, match=r"at least \$0.50"):
        shop.offline.pay(small.id, promotion_code=code)
    assert shop.offline.get(small.id)["amount_total"] == 80
    assert shop.offline.get(small.id)["status"] == "open"
    with pytest.raises(stripe.InvalidRequestError, match="only specify one of"):
        shop.offer(allow_promotion_codes=True, discounts=[{"promotion_code": "promo_1"}])


@pytest.mark.parametrize(
    "restriction",
    [
        {"restrictions": {"minimum_amount": 501, "minimum_amount_currency": "usd"}},
        {"restrictions": {"minimum_amount": 1, "minimum_amount_currency": "eur"}},
        {"restrictions": {"first_time_transaction": True}},
        {"customer": "another"},
        {"active": False},
        {"expires_at": START + 60},
        {"max_redemptions": 1},
        {"coupon": {"percent_off": 50.0, "max_redemptions": 1}},
        {"coupon": {"percent_off": 50.0, "redeem_by": START + 60}},
        {"coupon": {"amount_off": 100, "currency": "eur"}},
    ],
    ids=str,
)
def test_a_code_is_refused_where_its_restrictions_say_so(
    shop: Shop, clock: Clock, restriction: dict[str, Any]
) -> None:
    """Too little, another currency, customer or time, not the first purchase, used up."""
    customers = shop.client.v1.customers
    customer = customers.create({}).id
    if "customer" in restriction:
        restriction = {"customer": customers.create({}).id}
    code = promotion(shop, **restriction)
    if "max_redemptions" in str(restriction):
        shop.offline.pay(shop.offer(allow_promotion_codes=True).id, promotion_code=code.code)
    if "first_time_transaction" in str(restriction):
        shop.sell(customer=customer)
    clock.now += 60
    shop.offline.advance(0)
    session = shop.offer(allow_promotion_codes=True, customer=customer)
    with pytest.raises(StripeError):
        shop.offline.enter_code(session.id, code.code)
    assert shop.offline.pay(session.id)["amount_total"] == 500


def test_a_code_that_can_be_used_no_more_is_inactive(shop: Shop, clock: Clock) -> None:
    """And its letters are free again; a deleted coupon takes its codes along."""
    first = promotion(shop, code="ONCE", expires_at=START + 60)
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        promotion(shop, code="once")
    clock.now += 60
    codes = shop.client.v1.promotion_codes
    assert codes.retrieve(first.id).active is False
    second = promotion(shop, code="ONCE")
    assert [each.id for each in codes.list({"code": "once", "active": True}).data] == [second.id]
    shop.client.v1.coupons.delete(str(second.promotion.coupon))
    assert codes.retrieve(second.id).active is False
    with pytest.raises(stripe.InvalidRequestError, match="expired"):
        codes.update(second.id, {"active": True})


def test_a_coupon_may_be_for_some_products_only(shop: Shop) -> None:
    """The rest costs what it costs."""
    prices = [
        shop.client.v1.prices.create(
            {"currency": "usd", "unit_amount": 300, "product_data": {"name": name}}
        )
        for name in ("Slides", "Fonts")
    ]
    coupon: Any = {"percent_off": 50.0, "applies_to": {"products": [str(prices[1].product)]}}
    made = shop.client.v1.coupons.create(coupon)
    items = [{"price": each.id, "quantity": 1} for each in prices]
    session = shop.offer(line_items=items, discounts=[{"coupon": made.id}])
    listed = shop.client.v1.checkout.sessions.line_items.list(session.id).data
    assert {each.description: each.amount_total for each in listed} == {"Slides": 300, "Fonts": 150}


@pytest.mark.parametrize(
    ("coupon", "param"),
    [
        ({}, "percent_off"),
        ({"percent_off": 10, "amount_off": 10}, "percent_off"),
        ({"percent_off": 0}, "percent_off"),
        ({"percent_off": 101}, "percent_off"),
        ({"amount_off": 0, "currency": "usd"}, "amount_off"),
        ({"amount_off": 10}, "currency"),
        ({"percent_off": 10, "duration": "always"}, "duration"),
        ({"percent_off": 10, "applies_to": {"products": ["prod_1"]}}, "applies_to[products][0]"),
        ({"percent_off": 10, "id": "taken"}, "id"),
    ],
    ids=str,
)
def test_a_coupon_is_checked_as_stripe_checks_it(
    shop: Shop, coupon: dict[str, Any], param: str
) -> None:
    """With the parameter's name."""
    coupons: Any = shop.client.v1.coupons
    coupons.create({"id": "taken", "percent_off": 5.0})
    with pytest.raises(stripe.InvalidRequestError) as wrong:
        coupons.create(coupon)
    assert wrong.value.param == param
