"""Invoice items, and the lines of invoices that they become."""

from src.offline_stripe.account import Account, Object
from src.offline_stripe.catalog import create_price, merged_metadata, metadata_of
from src.offline_stripe.errors import invalid, refused
from src.offline_stripe.listing import matches, page


def create(account: Account, parameters: Object) -> Object:
    """`POST /v1/invoiceitems`: waits for the customer's next invoice, or is for a draft.

    Raises:
        StripeError: no customer, no amount, the invoice is no draft or of another currency.
    """
    customer = account.get("customer", parameters.get("customer", ""), "customer")
    invoice_id = parameters.get("invoice")
    invoice = account.get("invoice", invoice_id, "invoice") if invoice_id else None
    if invoice and invoice["status"] != "draft":
        raise invalid("The invoice is finalized: it takes no more items", "invoice")
    item = built(account, parameters) | {"customer": customer["id"]}
    if invoice:
        check_currency(invoice, item, "currency")
    account.add(item)
    item["invoice"] = invoice_id
    item["test_clock"] = customer["test_clock"]
    _recount(account, invoice_id)
    account.emit("invoiceitem.created", item)
    return item


def built(account: Account, parameters: Object) -> Object:
    """An item of what is asked for, of no customer yet."""
    quantity = parameters.get("quantity", 1)
    pricing: Object | None = None
    if "amount" in parameters:
        amount, currency, quantity = parameters["amount"], parameters.get("currency", "usd"), 1
    else:
        price = _price(account, parameters)
        amount, currency = price["unit_amount"] * quantity, price["currency"]
        pricing = {
            "price_details": {"price": price["id"], "product": price["product"]},
            "type": "price_details",
            "unit_amount_decimal": price["unit_amount_decimal"],
        }
    return {
        "id": account.new_id("ii"),
        "object": "invoiceitem",
        "amount": amount,
        "currency": currency.lower(),
        "customer": None,
        "customer_account": None,
        "date": account.now(),
        "description": parameters.get("description"),
        "discountable": True,
        "discounts": [],
        "invoice": None,
        "livemode": False,
        "metadata": metadata_of(parameters),
        "net_amount": amount,
        "parent": None,
        "period": {"start": account.now(), "end": account.now()},
        "pricing": pricing,
        "proration": False,
        "quantity": quantity,
        "quantity_decimal": str(quantity),
        "tax_rates": [],
        "test_clock": None,
    }


def update(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/invoiceitems/{id}`: while it is on no finalized invoice."""
    item = _changeable(account, object_id)
    fields: Object = {}
    if "amount" in parameters:
        fields = {"amount": parameters["amount"], "net_amount": parameters["amount"]}
    if "description" in parameters:
        fields["description"] = parameters["description"]
    account.change(item, metadata=merged_metadata(item, parameters), **fields)
    _recount(account, item["invoice"])
    return item


def delete(account: Account, _parameters: Object, object_id: str) -> Object:
    """`DELETE /v1/invoiceitems/{id}`: while it is on no finalized invoice."""
    item = _changeable(account, object_id)
    account.emit("invoiceitem.deleted", item)
    invoice_id = item["invoice"]
    item.clear()
    item |= {"id": object_id, "object": "invoiceitem", "deleted": True}
    _recount(account, invoice_id)
    return item


def list_items(account: Account, parameters: Object) -> Object:
    """`GET /v1/invoiceitems`; `pending` are those on no invoice."""
    pending = parameters.pop("pending", None)
    found = (
        each
        for each in account.all("invoiceitem")
        if matches(each, parameters)
        and (pending is None or (each.get("invoice") is None) is pending)
    )
    return page(found, parameters, "/v1/invoiceitems")


def waiting(account: Account, customer: str, currency: str | None) -> list[Object]:
    """The items for a customer's next invoice, in this currency or else in the first one's."""
    found = [
        each
        for each in account.all("invoiceitem")
        if not each.get("deleted") and each["customer"] == customer and each["invoice"] is None
    ]
    wanted = (currency or (found[0]["currency"] if found else "")).lower()
    return [each for each in found if each["currency"] == wanted]


def check_currency(invoice: Object, item: Object, param: str) -> None:
    """Refuse an item that the invoice cannot count.

    Raises:
        StripeError: it is of another currency.
    """
    if item["currency"] != invoice["currency"]:
        raise invalid(f"The invoice is in {invoice['currency']}: so are its items", param)


def total_up(account: Account, invoice: Object, items: list[Object]) -> None:
    """Have the invoice say what these items come to."""
    total = sum(each["amount"] for each in items)
    names = ("amount_due", "amount_remaining", "subtotal", "subtotal_excluding_tax")
    invoice |= dict.fromkeys((*names, "total", "total_excluding_tax"), total)
    invoice["lines"]["data"] = [_line(account, invoice["id"], each) for each in items]


def _recount(account: Account, invoice_id: str | None) -> None:
    if invoice_id is not None:
        items = [each for each in account.all("invoiceitem") if each.get("invoice") == invoice_id]
        total_up(account, account.get("invoice", invoice_id), items)


def _line(account: Account, invoice_id: str, item: Object) -> Object:
    """An invoice's line for an item."""
    parent: Object = {
        "invoice_item_details": {
            "invoice_item": item["id"],
            "proration": False,
            "proration_details": {"credited_items": None},
            "subscription": None,
        },
        "subscription_item_details": None,
        "type": "invoice_item_details",
    }
    return {
        "id": account.new_id("il"),
        "object": "line_item",
        "amount": item["amount"],
        "currency": item["currency"],
        "description": item["description"],
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": invoice_id,
        "livemode": False,
        "metadata": dict(item["metadata"]),
        "parent": parent,
        "period": dict(item["period"]),
        "pretax_credit_amounts": [],
        "pricing": item["pricing"],
        "quantity": item["quantity"],
        "quantity_decimal": item["quantity_decimal"],
        "subscription": None,
        "subtotal": item["amount"],
        "taxes": [],
    }


def _price(account: Account, parameters: Object) -> Object:
    if data := parameters.get("price_data"):
        return create_price(account, data)
    given: Object = parameters.get("pricing") or {}
    if not given.get("price"):
        raise invalid("Give one of amount, pricing and price_data", "amount", "parameter_missing")
    return account.get("price", given["price"], "pricing[price]")


def _changeable(account: Account, object_id: str) -> Object:
    item = account.get("invoiceitem", object_id)
    invoice = account.find("invoice", item["invoice"]) if item["invoice"] else None
    if invoice is not None and invoice.get("status") not in ("draft", None):
        raise refused("This invoice item is on a finalized invoice and cannot be changed")
    return item
