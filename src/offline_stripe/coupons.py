"""Coupons and the promotion codes that customers enter to have one: made, changed, used up.

Source: docs.stripe.com/payments/checkout/discounts, and Stripe's API reference of both.
"""

from src.offline_stripe.account import Account, Object
from src.offline_stripe.catalog import merged_metadata, metadata_of
from src.offline_stripe.errors import invalid
from src.offline_stripe.listing import matches, page

PERCENT_MAX = 100


def create(account: Account, parameters: Object) -> Object:
    """`POST /v1/coupons`: so much off, or so many per cent.

    Raises:
        StripeError: both or neither, an amount without its currency, an id that is taken.
    """
    amount, percent = parameters.get("amount_off"), parameters.get("percent_off")
    _check_worth(parameters)
    coupon_id = parameters.get("id") or account.new_id("x", 8)[2:]
    if account.find("coupon", coupon_id) is not None:
        raise invalid("Coupon already exists.", "id", "resource_already_exists")
    applies_to: dict[str, list[str]] = parameters.get("applies_to") or {}
    products = applies_to.get("products", [])
    for number, product in enumerate(products):
        account.get("product", product, f"applies_to[products][{number}]")
    coupon = account.add(
        {
            "id": coupon_id,
            "object": "coupon",
            "amount_off": amount,
            "created": account.now(),
            "currency": parameters["currency"].lower() if amount else None,
            "duration": parameters.get("duration", "once"),
            "duration_in_months": parameters.get("duration_in_months"),
            "livemode": False,
            "max_redemptions": parameters.get("max_redemptions"),
            "metadata": metadata_of(parameters),
            "name": parameters.get("name"),
            "percent_off": percent,
            "redeem_by": parameters.get("redeem_by"),
            "times_redeemed": 0,
            "valid": True,
        }
    )
    account.private(coupon_id)["products"] = products
    account.emit("coupon.created", coupon)
    return coupon


def update(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/coupons/{id}`: its name and metadata; what it is worth is for ever."""
    coupon = account.get("coupon", object_id)
    _refuse_currency_options(parameters)
    metadata = merged_metadata(coupon, parameters)
    name = parameters.get("name", coupon["name"])
    return account.change(coupon, "coupon.updated", metadata=metadata, name=name)


def delete(account: Account, _parameters: Object, object_id: str) -> Object:
    """`DELETE /v1/coupons/{id}`: nobody can use it any more, nor its codes."""
    coupon = account.get("coupon", object_id)
    account.emit("coupon.deleted", coupon)
    coupon.clear()
    coupon |= {"id": object_id, "object": "coupon", "deleted": True}
    lapse(account)
    return coupon


def list_coupons(account: Account, parameters: Object) -> Object:
    """`GET /v1/coupons`."""
    found = (each for each in account.all("coupon") if matches(each, parameters))
    return page(found, parameters, "/v1/coupons")


def products_of(account: Account, coupon: Object) -> Object:
    """What `expand[]=applies_to` shows: the products it is for, none where that is all."""
    return {"products": account.private(coupon["id"])["products"]}


def create_code(account: Account, parameters: Object) -> Object:
    """`POST /v1/promotion_codes`.

    Raises:
        StripeError: no such coupon, or an active code of the same letters.
    """
    promotion = parameters.get("promotion") or {"coupon": parameters.get("coupon", "")}
    param = "promotion[coupon]"
    coupon = account.get("coupon", promotion.get("coupon", ""), param)
    if not coupon["valid"]:
        raise invalid(f"Coupon expired: {coupon['id']}", param, "coupon_expired")
    if customer := parameters.get("customer"):
        account.get("customer", customer, "customer")
    code = parameters.get("code") or account.new_id("x", 8)[2:].upper()
    if find_code(account, code) is not None:
        raise invalid(f"An active promotion code with `code: {code}` already exists.", "code")
    made = account.add(
        {
            "id": account.new_id("promo"),
            "object": "promotion_code",
            "active": parameters.get("active", True),
            "code": code,
            "created": account.now(),
            "customer": customer,
            "customer_account": None,
            "expires_at": parameters.get("expires_at"),
            "livemode": False,
            "max_redemptions": parameters.get("max_redemptions"),
            "metadata": metadata_of(parameters),
            "promotion": {"coupon": coupon["id"], "type": "coupon"},
            "restrictions": _restrictions(parameters.get("restrictions") or {}),
            "times_redeemed": 0,
        }
    )
    account.emit("promotion_code.created", made)
    return made


def update_code(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/promotion_codes/{id}`: whether it is active, and its metadata."""
    code = account.get("promotion_code", object_id)
    _refuse_currency_options(parameters.get("restrictions") or {}, "restrictions")
    active = parameters.get("active", code["active"])
    if active and not _can_be_used(account, code):
        raise invalid("This promotion code cannot be activated: it has expired", "active")
    metadata = merged_metadata(code, parameters)
    return account.change(code, "promotion_code.updated", active=active, metadata=metadata)


def list_codes(account: Account, parameters: Object) -> Object:
    """`GET /v1/promotion_codes`."""
    coupon, code = parameters.pop("coupon", None), parameters.pop("code", None)
    found = (
        each
        for each in account.all("promotion_code")
        if matches(each, parameters)
        and coupon in (None, each["promotion"]["coupon"])
        and (code is None or each["code"].lower() == code.lower())
    )
    return page(found, parameters, "/v1/promotion_codes")


def find_code(account: Account, code: str) -> Object | None:
    """The active promotion code of these letters, small or capital, if there is one."""
    for each in account.all("promotion_code"):
        if each["active"] and each["code"].lower() == code.strip().lower():
            return each
    return None


def redeem(account: Account, discounts: list[Object]) -> None:
    """Count that a customer has paid with these."""
    for each in discounts:
        names = (("coupon", each["coupon"]), ("promotion_code", each["promotion_code"]))
        for kind, object_id in names:
            found = account.find(kind, object_id) if object_id else None
            if found is not None and not found.get("deleted"):
                found["times_redeemed"] += 1
    lapse(account)


def lapse(account: Account) -> None:
    """Note which coupons and codes can be used no more: used up, expired, deleted."""
    for coupon in account.all("coupon"):
        if not coupon.get("deleted"):
            coupon["valid"] = _is_left(coupon) and not _is_past(account, coupon["redeem_by"])
    for code in account.all("promotion_code"):
        code["active"] = code["active"] and _can_be_used(account, code)


def _check_worth(parameters: Object) -> None:
    amount, percent = parameters.get("amount_off"), parameters.get("percent_off")
    if (amount is None) == (percent is None):
        raise invalid(
            "You must pass either `percent_off` or `amount_off`, and not both",
            "percent_off",
            "parameter_missing",
        )
    if percent is not None and not 0 < percent <= PERCENT_MAX:
        raise invalid("Percent off must be between 0 and 100", "percent_off")
    if amount is not None and amount < 1:
        raise invalid("Invalid positive integer", "amount_off", "parameter_invalid_integer")
    if amount is not None and not parameters.get("currency"):
        raise invalid("You must pass currency when passing amount_off", "currency")
    _refuse_currency_options(parameters)


def _refuse_currency_options(parameters: Object, path: str = "") -> None:
    if parameters.get("currency_options"):
        param = f"{path}[currency_options]" if path else "currency_options"
        raise invalid("The offline Stripe's coupons have one currency", param)


def _restrictions(given: Object) -> Object:
    _refuse_currency_options(given, "restrictions")
    least = given.get("minimum_amount")
    currency: str | None = given.get("minimum_amount_currency")
    if (least is None) != (currency is None):
        raise invalid(
            "minimum_amount and minimum_amount_currency go together", "restrictions[minimum_amount]"
        )
    return {
        "first_time_transaction": given.get("first_time_transaction", False),
        "minimum_amount": least,
        "minimum_amount_currency": currency and currency.lower(),
    }


def _can_be_used(account: Account, code: Object) -> bool:
    coupon = account.find("coupon", code["promotion"]["coupon"])
    return (
        bool(coupon and coupon.get("valid"))
        and _is_left(code)
        and not _is_past(account, code["expires_at"])
    )


def _is_left(obj: Object) -> bool:
    most = obj["max_redemptions"]
    return most is None or obj["times_redeemed"] < most


def _is_past(account: Account, instant: int | None) -> bool:
    return instant is not None and instant <= account.now()
