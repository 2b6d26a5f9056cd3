"""Taxes and the account's own defaults, as Stripe has them."""

from typing import Any

import pytest
import stripe

from src.offline_stripe.errors import StripeError
from tests.offline_stripe.shop import Shop
from tests.offline_stripe.test_control import control

TAXED: dict[str, Any] = {"automatic_tax": {"enabled": True}}


@pytest.mark.parametrize(
    ("behavior", "percent", "amount", "total", "tax"),
    [
        ("exclusive", "19", 500, 595, 95),
        ("inclusive", "19", 500, 500, 80),
        ("exclusive", "8.875", 1_000, 1_089, 89),
        ("inclusive", "8.875", 1_000, 1_000, 82),
        ("exclusive", "0", 500, 500, 0),
    ],
)
def test_a_tax_is_on_top_or_within(
    shop: Shop, behavior: str, percent: str, amount: int, total: int, tax: int
) -> None:
    """Once the customer has said where they are; the payment is of the total."""
    shop.offline.set_defaults(tax_percent=percent, tax_behavior=behavior)
    session = shop.sell(amount, **TAXED)
    assert (session["amount_subtotal"], session["amount_total"]) == (amount, total)
    assert session["total_details"]["amount_tax"] == tax
    assert shop.charge_of(session)["amount"] == total


def test_a_declined_card_is_not_taxed_twice(shop: Shop) -> None:
    """The customer tries again on the same page."""
    shop.offline.set_defaults(tax_percent="19")
    session = shop.sell(method="chargeDeclined", **TAXED)
    shop.offline.pay(session["id"])
    assert (session["amount_total"], shop.charge_of(session)["amount"]) == (595, 595)


@pytest.mark.parametrize(
    ("behavior", "total", "tax"), [("exclusive", 595, 95), ("inclusive", 500, 80)]
)
def test_a_code_after_a_declined_card_is_off_before_tax(
    shop: Shop, behavior: str, total: int, tax: int
) -> None:
    """As one that is entered first."""
    shop.offline.set_defaults(tax_percent="19", tax_behavior=behavior)
    coupon = shop.client.v1.coupons.create({"percent_off": 50.0}).id
    code: Any = {"promotion": {"type": "coupon", "coupon": coupon}, "code": "HALF"}
    shop.client.v1.promotion_codes.create(code)
    session = shop.sell(1_000, "chargeDeclined", allow_promotion_codes=True, **TAXED)
    shop.offline.enter_code(session["id"], "HALF")
    assert (session["amount_total"], session["total_details"]["amount_tax"]) == (total, tax)
    shop.offline.pay(session["id"])
    assert shop.charge_of(session)["amount"] == total
    assert session["total_details"]["amount_discount"] == 500


def test_without_a_behavior_taxes_are_refused(shop: Shop) -> None:
    """Neither the price nor the account says whether it includes them."""
    shop.offline.set_defaults(tax_behavior="unspecified")
    with pytest.raises(stripe.InvalidRequestError, match="tax_behavior"):
        shop.offer(**TAXED)


def test_what_a_request_leaves_open_the_account_decides(shop: Shop) -> None:
    """Over HTTP; what it says counts."""
    changes = {
        "automatic_tax": True,
        "adaptive_pricing": True,
        "managed_payments": True,
        "payment_method_types[0]": "sepa_debit",
        "tax_behavior": "inclusive",
        "tax_percent": "19",
    }
    assert control(shop.offline, "account/defaults", **changes)[0] == 200
    left_open = shop.offline.get(shop.offer().id)
    switches = ("automatic_tax", "adaptive_pricing", "managed_payments")
    assert [left_open[name]["enabled"] for name in switches] == [True] * 3
    assert left_open["payment_method_types"] == ["sepa_debit"]
    off: Any = {name: {"enabled": False} for name in switches}
    said = shop.offline.get(shop.offer(**off, allowed_payment_method_types=["card"]).id)
    assert [said[name]["enabled"] for name in switches] == [False] * 3
    assert said["payment_method_types"] == ["card"]


def test_only_what_a_session_takes_pays_it(shop: Shop) -> None:
    """The page does not offer the rest."""
    session = shop.offer(allowed_payment_method_types=["card"])
    with pytest.raises(StripeError, match="sepa_debit"):
        shop.offline.pay(session.id, "sepa")
    assert shop.offline.pay(session.id)["payment_status"] == "paid"
