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
    other = promotion(shop, code="Winter26").code
    with pytest.raises(StripeError, match="has a promotion code already"):
        shop.offline.enter_code(session.id, other)
    assert shop.charge_of(shop.offline.pay(session.id))["amount"] == 250
    assert shop.client.v1.promotion_codes.retrieve(code.id).times_redeemed == 1


def test_a_code_entered_again_after_a_decline_takes_off_no_more(shop: Shop) -> None:
    """Whoever sends the same form again with another card pays the same rest."""
    code = promotion(shop).code
    session = shop.offer(allow_promotion_codes=True)
    declined = shop.offline.pay(session.id, "chargeDeclined", promotion_code=code)
    assert (declined["status"], declined["amount_total"]) == ("open", 250)
    paid = shop.offline.pay(session.id, promotion_code=code)
    assert (paid["status"], paid["amount_total"]) == ("complete", 250)
    assert paid["total_details"]["amount_discount"] == 250


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


def test_a_code_comes_too_late_for_a_payment_that_has_begun(shop: Shop) -> None:
    """What 3-D Secure is asked for is what is charged."""
    code = promotion(shop).code
    session = shop.sell(1_000, "authenticationRequired", allow_promotion_codes=True)
    with pytest.raises(StripeError, match="too late"):
        shop.offline.enter_code(session["id"], code)
    with pytest.raises(StripeError, match="too late"):
        shop.offline.pay(session["id"], promotion_code=code)
    shop.offline.authenticate(session["id"])
    assert (session["amount_total"], shop.charge_of(session)["amount"]) == (1_000, 1_000)


@pytest.mark.parametrize("limited", ["coupon", "code"])
def test_a_code_for_one_is_redeemed_once(shop: Shop, limited: str) -> None:
    """Entered on two pages: whoever pays second is told so, and may pay the full price."""
    once: Any = {"max_redemptions": 1}
    code = promotion(
        shop,
        coupon={"percent_off": 50.0, **(once if limited == "coupon" else {})},
        **(once if limited == "code" else {}),
    )
    first, second = (shop.offer(allow_promotion_codes=True).id for _ in range(2))
    for session_id in (first, second):
        shop.offline.enter_code(session_id, code.code)
    assert shop.offline.pay(first)["amount_total"] == 250
    with pytest.raises(StripeError, match="no more"):
        shop.offline.pay(second)
    assert shop.offline.get(second)["amount_total"] == 500
    assert shop.charge_of(shop.offline.pay(second))["amount"] == 500
    assert shop.client.v1.promotion_codes.retrieve(code.id).times_redeemed == 1


def test_a_code_that_is_taken_away_takes_a_begun_payment_along(shop: Shop) -> None:
    """What waits for 3-D Secure was of the lower price."""
    code = promotion(shop, max_redemptions=1).code
    first, second = (shop.offer(allow_promotion_codes=True).id for _ in range(2))
    shop.offline.pay(second, "authenticationRequired", promotion_code=code)
    shop.offline.pay(first, promotion_code=code)
    with pytest.raises(StripeError, match="no more"):
        shop.offline.pay(second)
    with pytest.raises(StripeError, match="waits for no authentication"):
        shop.offline.authenticate(second)
    assert shop.charge_of(shop.offline.pay(second))["amount"] == 500


def test_a_discount_that_the_shop_gave_is_not_taken_away(shop: Shop) -> None:
    """Used up elsewhere, the offer cannot be paid; deleted, neither."""
    coupons = shop.client.v1.coupons
    coupon = coupons.create({"percent_off": 50.0, "max_redemptions": 1}).id
    first, second = (shop.offer(discounts=[{"coupon": coupon}]).id for _ in range(2))
    shop.offline.pay(first)
    for _ in range(2):
        with pytest.raises(StripeError, match="no more"):
            shop.offline.pay(second)
        if not shop.offline.get(coupon).get("deleted"):
            coupons.delete(coupon)
    assert shop.offline.get(second)["amount_total"] == 250


@pytest.mark.parametrize(("amount", "off"), [(1_001, 501), (1_003, 502), (1_002, 501)])
def test_half_a_cent_off_is_one(shop: Shop, amount: int, off: int) -> None:
    """As taxes are rounded."""
    coupon = shop.client.v1.coupons.create({"percent_off": 50.0}).id
    session = shop.sell(amount, discounts=[{"coupon": coupon}])
    assert session["total_details"]["amount_discount"] == off


def test_a_code_for_everything_ends_what_a_declined_card_began(shop: Shop) -> None:
    """Nothing is due, so nothing is left that could be charged."""
    code = promotion(shop, coupon={"percent_off": 100}).code
    session = shop.sell(1_000, "chargeDeclined", allow_promotion_codes=True)
    intent = session["payment_intent"]
    shop.offline.pay(session["id"], promotion_code=code)
    assert (session["status"], session["payment_intent"]) == ("complete", None)
    assert shop.offline.get(intent)["status"] == "canceled"
