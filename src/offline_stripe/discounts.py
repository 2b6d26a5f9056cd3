"""Discounts of Checkout Sessions: which coupon or promotion code counts, and what it takes off.

Source: docs.stripe.com/payments/checkout/discounts.
"""

from decimal import Decimal

from src.offline_stripe import coupons
from src.offline_stripe.account import Account, Object
from src.offline_stripe.amounts import money, rounded
from src.offline_stripe.errors import StripeError, invalid, refused

PARAM = "promotion_code"


def asked_for(account: Account, parameters: Object, items: list[Object]) -> list[Object]:
    """The discounts that a request for a session with these items names, as the session has them.

    Raises:
        StripeError: no such coupon or code, or it is not for this session.
    """
    given: list[Object] = parameters.get("discounts") or []
    if given and parameters.get("allow_promotion_codes"):
        raise invalid(
            "You may only specify one of these parameters: allow_promotion_codes, discounts."
        )
    if len(given) > 1:
        raise invalid("You may only specify one discount", "discounts")
    found: list[Object] = []
    for number, each in enumerate(given):
        param = f"discounts[{number}]"
        if code_id := each.get("promotion_code"):
            code = account.get("promotion_code", code_id, f"{param}[promotion_code]")
            if not code["active"]:
                raise invalid("This promotion code is not active", f"{param}[promotion_code]")
            found.append(_of_code(account, code, parameters.get("customer"), items))
        else:
            coupon = account.get("coupon", each.get("coupon", ""), f"{param}[coupon]")
            found.append(_discount(coupon, None, items[0]["currency"]))
    return found


def entered(account: Account, session: Object, text: str, items: list[Object]) -> list[Object]:
    """The discounts of a session on whose page a customer enters a promotion code.

    The code that it has already may be entered again, as with another card after a decline.

    Raises:
        StripeError: the session takes none or has another, or the code is not for it.
    """
    if not session["allow_promotion_codes"]:
        raise refused("This session takes no promotion code.", param=PARAM)
    code = coupons.find_code(account, text)
    if code is None:
        raise refused("This code is invalid.", param=PARAM)
    if any(each["promotion_code"] != code["id"] for each in session["discounts"]):
        raise refused("This session has a promotion code already.", param=PARAM)
    return [_of_code(account, code, session["customer"], items)]


def can_be_redeemed(account: Account, discounts: list[Object]) -> bool:
    """Whether each coupon and code is neither used up, past its time nor deleted."""
    coupons.lapse(account)
    return all(
        (account.find("coupon", each["coupon"]) or {}).get("valid")
        and (
            each["promotion_code"] is None
            or account.get("promotion_code", each["promotion_code"])["active"]
        )
        for each in discounts
    )


def take_off(account: Account, items: list[Object], discounts: list[Object]) -> None:
    """Take the coupons off the items that they are for, first item first."""
    for each in discounts:
        coupon = account.get("coupon", each["coupon"])
        products = account.private(coupon["id"]).get("products")
        meant = [item for item in items if not products or item["price"]["product"] in products]
        left = sum(item["amount_total"] for item in meant)
        percent = Decimal(str(coupon["percent_off"] or 0))
        off = coupon["amount_off"] or rounded(left * percent / 100)
        for item in meant:
            part = min(item["amount_total"], off)
            item["amount_discount"] += part
            item["amount_total"] -= part
            off -= part


def _of_code(account: Account, code: Object, customer: str | None, items: list[Object]) -> Object:
    restrictions = code["restrictions"]
    currency = items[0]["currency"]
    least: int | None = restrictions["minimum_amount"]
    if code["customer"] not in (None, customer):
        raise _not_for("this customer")
    if restrictions["first_time_transaction"] and _has_bought(account, customer):
        raise _not_for("customers who have bought before")
    if least is not None and (
        restrictions["minimum_amount_currency"] != currency
        or sum(each["amount_subtotal"] for each in items) < least
    ):
        wanted = money(least, restrictions["minimum_amount_currency"])
        raise refused(f"This code is for purchases of at least {wanted}.", param=PARAM)
    coupon = account.get("coupon", code["promotion"]["coupon"], PARAM)
    return _discount(coupon, code["id"], currency)


def _discount(coupon: Object, code_id: str | None, currency: str) -> Object:
    if not coupon["valid"]:
        raise invalid(f"Coupon expired: {coupon['id']}", "discounts", "coupon_expired")
    if coupon["currency"] not in (None, currency):
        raise invalid(f"The coupon is for payments in {coupon['currency']}", "discounts")
    return {"coupon": coupon["id"], "promotion_code": code_id}


def _has_bought(account: Account, customer: str | None) -> bool:
    return customer is not None and any(
        each["customer"] == customer and each["status"] == "succeeded"
        for each in account.all("charge")
    )


def _not_for(whom: str) -> StripeError:
    return refused(f"This code is not for {whom}.", param=PARAM)
