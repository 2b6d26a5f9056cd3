"""What an order allows beside its price: taxes on top or within, discounts up to all of it."""

import uuid
from dataclasses import replace

import pytest

from src.common.models.checkout_order import CheckoutOrder
from src.common.purchases.packages import PACKAGES
from src.common.purchases.rules import Mismatch, Offer, Payment, Reason, Terms, judge

ORDER_ID, USER_ID = uuid.UUID(int=1), uuid.UUID(int=2)
TERMS = Terms(env="local", livemode=False, packages=PACKAGES)


def an_order(*, allows_discount: bool, allows_tax: bool) -> CheckoutOrder:
    """500 credits for 500 cents."""
    return CheckoutOrder(
        order_id=ORDER_ID,
        user_id=USER_ID,
        package_id="500",
        credits=500,
        amount_cents=500,
        currency="usd",
        livemode=False,
        allows_discount=allows_discount,
        allows_tax=allows_tax,
    )


def paid(total: int, *, discount: int = 0, tax: int = 0) -> Payment:
    """What Stripe says of the order's session, priced at 500."""
    return Payment(
        stripe_session_id="cs_1",
        livemode=False,
        mode="payment",
        payment_status="paid" if total else "no_payment_required",
        payment_intent_id="pi_1" if total else None,
        currency="usd",
        amount_subtotal_cents=500,
        amount_total_cents=total,
        env="local",
        user_id=USER_ID,
        package_id="500",
        credits="500",
        discount_cents=discount,
        tax_cents=tax,
        order_id=ORDER_ID,
    )


RIGHT = {
    "nothing beside the price": paid(500),
    "a tax on top": paid(580, tax=80),
    "a tax within": paid(500, tax=80),
    "a tax within and one on top": paid(520, tax=80),
    "a discount": paid(400, discount=100),
    "a discount and a tax on what is left": paid(464, discount=100, tax=64),
    "a discount and a tax within what is left": paid(400, discount=100, tax=64),
    "a promotion code for all of it": paid(0, discount=500),
}
WRONG = {
    "less than the discount explains": paid(399, discount=100),
    "less than a tax within explains": paid(499, tax=80),
    "more than the tax explains": paid(581, tax=80),
    "nothing, without a discount": replace(paid(0), payment_status="paid"),
    "nothing, discounted by less": replace(paid(0, discount=499), payment_status="paid"),
    "nothing said": replace(paid(500), amount_total_cents=None),
}


@pytest.mark.parametrize("payment", RIGHT.values(), ids=RIGHT.keys())
def test_what_the_order_allows_is_credited_and_nothing_of_it_without_leave(
    payment: Payment,
) -> None:
    """The offer where both are allowed; where neither is, only the price itself is right."""
    verdict = judge(payment, an_order(allows_discount=True, allows_tax=True), TERMS)
    assert isinstance(verdict, Offer)
    assert verdict.credits == 500
    strict = judge(payment, an_order(allows_discount=False, allows_tax=False), TERMS)
    assert isinstance(strict, Offer) is (payment.amount_total_cents == 500)


@pytest.mark.parametrize("payment", WRONG.values(), ids=WRONG.keys())
def test_what_neither_explains_is_a_mismatch(payment: Payment) -> None:
    """Of the amount."""
    verdict = judge(payment, an_order(allows_discount=True, allows_tax=True), TERMS)
    assert isinstance(verdict, Mismatch)
    assert verdict.reason is Reason.AMOUNT_MISMATCH


def test_a_free_order_is_credited_only_where_stripe_says_that_nothing_was_due() -> None:
    """A status that is not of this outcome is not paid."""
    order = an_order(allows_discount=True, allows_tax=True)
    for payment in (
        replace(paid(0, discount=500), payment_status="unpaid"),
        replace(paid(400, discount=100), payment_status="no_payment_required"),
    ):
        verdict = judge(payment, order, TERMS)
        assert isinstance(verdict, Mismatch)
        assert verdict.reason is Reason.NOT_PAID
