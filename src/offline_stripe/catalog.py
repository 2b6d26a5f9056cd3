"""Customers, products, prices: what is sold, for how much, to whom."""

from typing import Any

from src.offline_stripe.account import Account, Object
from src.offline_stripe.errors import invalid, refused
from src.offline_stripe.listing import matches, page

METADATA_KEYS_MAX = 50
METADATA_KEY_LENGTH_MAX = 40
METADATA_VALUE_LENGTH_MAX = 500
_CUSTOMER_TEXTS = ("description", "email", "name", "phone")
_CUSTOMER_KEPT = ("balance", "next_invoice_sequence", "preferred_locales", "tax_exempt")
_CUSTOMER_NAMES = ("business_name", "individual_name")
"""These are absent until they are given."""
_PRODUCT_KEPT = ("marketing_features", "package_dimensions", "statement_descriptor", "tax_code")
_PRODUCT_FIELDS = (
    *("active", "description", "images", "shippable", "unit_label", "url", "name"),
    *_PRODUCT_KEPT,
)
_PRICE_FIELDS = ("active", "lookup_key", "nickname", "tax_behavior")


def metadata_of(parameters: Object, param: str = "metadata") -> dict[str, str]:
    """The given metadata within Stripe's limits.

    Raises:
        StripeError: too many keys, or one that is too long.
    """
    metadata: dict[str, str] = dict(parameters.get("metadata") or {})
    if len(metadata) > METADATA_KEYS_MAX:
        raise invalid(f"Metadata can have up to {METADATA_KEYS_MAX} keys", param)
    for name, value in metadata.items():
        if len(name) > METADATA_KEY_LENGTH_MAX:
            raise invalid(f"Metadata keys can be up to {METADATA_KEY_LENGTH_MAX} characters", param)
        if len(value) > METADATA_VALUE_LENGTH_MAX:
            raise invalid(
                f"Metadata values can be up to {METADATA_VALUE_LENGTH_MAX} characters",
                f"{param}[{name}]",
            )
    return metadata


def merged_metadata(obj: Object, parameters: Object) -> dict[str, str]:
    """The object's metadata changed as asked: an empty value unsets a key, an empty whole all."""
    if "metadata" not in parameters:
        return dict(obj["metadata"])
    given = metadata_of(parameters)
    merged = {**obj["metadata"], **given} if given else {}
    return {name: value for name, value in merged.items() if value}


def create_customer(account: Account, parameters: Object) -> Object:
    """`POST /v1/customers`."""
    method = parameters.get("payment_method")
    metadata = metadata_of(parameters)
    if clock := parameters.get("test_clock"):
        account.get("test_helpers.test_clock", clock, "test_clock")
    customer = new_customer(
        account,
        metadata=metadata,
        address=parameters.get("address") or None,
        shipping=parameters.get("shipping") or None,
        test_clock=clock,
        **{name: parameters.get(name) or None for name in _CUSTOMER_TEXTS},
        **{name: parameters[name] for name in _CUSTOMER_NAMES if parameters.get(name)},
        **{name: parameters[name] for name in _CUSTOMER_KEPT if name in parameters},
    )
    if method:
        from src.offline_stripe.cards import attach

        attach(account, {"customer": customer["id"]}, method)
    return customer


def new_customer(account: Account, **fields: Any) -> Object:
    """A customer with these fields, and the event that says so."""
    customer: Object = {
        "id": account.new_id("cus", 14),
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": account.now(),
        "currency": None,
        "customer_account": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": None,
        "invoice_prefix": account.new_id("x", 8)[2:].upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": {},
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
        **fields,
    }
    account.emit("customer.created", account.add(customer))
    return customer


def update_customer(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/customers/{id}`."""
    customer = account.get("customer", object_id)
    names = (*_CUSTOMER_TEXTS, *_CUSTOMER_NAMES, "address", "shipping")
    fields = {name: parameters[name] or None for name in names if name in parameters}
    fields |= {name: parameters[name] for name in _CUSTOMER_KEPT if name in parameters}
    metadata = merged_metadata(customer, parameters)
    unset = [name for name in _CUSTOMER_NAMES if fields.get(name, "") is None]
    return account.change(customer, "customer.updated", unset=unset, metadata=metadata, **fields)


def delete_customer(account: Account, _parameters: Object, object_id: str) -> Object:
    """`DELETE /v1/customers/{id}`: it answers, and is shown, as deleted."""
    customer = account.get("customer", object_id)
    account.emit("customer.deleted", customer)
    customer.clear()
    customer |= {"id": object_id, "object": "customer", "deleted": True}
    return customer


def retrieve_customer(account: Account, _parameters: Object, object_id: str) -> Object:
    """`GET /v1/customers/{id}`; a deleted one is still found, and says so."""
    return account.find("customer", object_id) or account.get("customer", object_id)


def list_customers(account: Account, parameters: Object) -> Object:
    """`GET /v1/customers`."""
    found = (each for each in account.all("customer") if matches(each, parameters))
    return page(found, parameters, "/v1/customers")


def create_product(account: Account, parameters: Object) -> Object:
    """`POST /v1/products`, with its default price if that is given."""
    product = account.add(
        {
            "id": parameters.get("id") or account.new_id("prod", 14),
            "object": "product",
            "active": parameters.get("active", True),
            "created": account.now(),
            "default_price": None,
            "description": parameters.get("description"),
            "images": parameters.get("images") or [],
            "livemode": False,
            "marketing_features": [],
            "metadata": metadata_of(parameters),
            "name": parameters["name"],
            "package_dimensions": None,
            "shippable": parameters.get("shippable"),
            "statement_descriptor": None,
            "tax_code": None,
            "tax_details": None,
            "type": parameters.get("type", "service"),
            "unit_label": parameters.get("unit_label"),
            "updated": account.now(),
            "url": parameters.get("url"),
            **{name: parameters[name] for name in _PRODUCT_KEPT if name in parameters},
        }
    )
    account.emit("product.created", product)
    if data := parameters.get("default_price_data"):
        product["default_price"] = create_price(account, {**data, "product": product["id"]})["id"]
    return product


def update_product(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/products/{id}`."""
    product = account.get("product", object_id)
    fields = {name: parameters[name] for name in _PRODUCT_FIELDS if name in parameters}
    if price := parameters.get("default_price"):
        fields["default_price"] = account.get("price", price, "default_price")["id"]
    metadata = merged_metadata(product, parameters)
    return account.change(
        product, "product.updated", metadata=metadata, updated=account.now(), **fields
    )


def delete_product(account: Account, _parameters: Object, object_id: str) -> Object:
    """`DELETE /v1/products/{id}`: one without prices.

    Raises:
        StripeError: it has prices; these are for ever.
    """
    product = account.get("product", object_id)
    if any(each["product"] == object_id for each in account.all("price")):
        raise refused(
            "This product cannot be deleted because it has one or more user-created prices.", None
        )
    account.emit("product.deleted", product)
    product.clear()
    product |= {"id": object_id, "object": "product", "deleted": True}
    return product


def list_products(account: Account, parameters: Object) -> Object:
    """`GET /v1/products`."""
    ids = parameters.pop("ids", None)
    found = (
        each
        for each in account.all("product")
        if matches(each, parameters) and (ids is None or each["id"] in ids)
    )
    return page(found, parameters, "/v1/products")


def create_price(account: Account, parameters: Object) -> Object:
    """`POST /v1/prices`, of a product there is or one given along."""
    unit_amount = parameters.get("unit_amount")
    if unit_amount is None or unit_amount < 0:
        raise invalid("unit_amount must be given, 0 or more", "unit_amount", "parameter_missing")
    if data := parameters.get("product_data"):
        product = create_product(account, data)
    else:
        product = account.get("product", parameters.get("product", ""), "product")
    recurring = parameters.get("recurring")
    price = account.add(
        {
            "id": account.new_id("price"),
            "object": "price",
            "active": parameters.get("active", True),
            "billing_scheme": "per_unit",
            "created": account.now(),
            "currency": parameters["currency"].lower(),
            "custom_unit_amount": None,
            "livemode": False,
            "lookup_key": parameters.get("lookup_key"),
            "metadata": metadata_of(parameters),
            "nickname": parameters.get("nickname"),
            "product": product["id"],
            "recurring": recurring
            and {"interval_count": 1, "meter": None, "usage_type": "licensed", **recurring},
            "tax_behavior": parameters.get("tax_behavior", "unspecified"),
            "tiers_mode": None,
            "transform_quantity": None,
            "type": "recurring" if recurring else "one_time",
            "unit_amount": unit_amount,
            "unit_amount_decimal": str(unit_amount),
        }
    )
    account.emit("price.created", price)
    return price


def update_price(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/prices/{id}`; the amount is for ever."""
    price = account.get("price", object_id)
    fields = {name: parameters[name] for name in _PRICE_FIELDS if name in parameters}
    metadata = merged_metadata(price, parameters)
    return account.change(price, "price.updated", metadata=metadata, **fields)


def list_prices(account: Account, parameters: Object) -> Object:
    """`GET /v1/prices`."""
    keys = parameters.pop("lookup_keys", None)
    found = (
        each
        for each in account.all("price")
        if matches(each, parameters) and (keys is None or each["lookup_key"] in keys)
    )
    return page(found, parameters, "/v1/prices")
