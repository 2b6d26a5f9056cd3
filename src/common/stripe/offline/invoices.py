"""Invoices, as far as their events are about payments that happened."""

import copy
from typing import Any

from src.common.stripe.offline import cards, payments
from src.common.stripe.offline.account import Account, Object
from src.common.stripe.offline.errors import refused
from src.common.stripe.offline.listing import list_of, matches, page
from src.common.stripe.offline.shapes import INVOICE


def create_item(account: Account, parameters: Object) -> Object:
    """`POST /v1/invoiceitems`: waits for the customer's next invoice."""
    customer = account.get("customer", parameters.get("customer", ""), "customer")
    amount = parameters.get("amount", 0)
    item = account.add(
        {
            "id": account.new_id("ii"),
            "object": "invoiceitem",
            "amount": amount,
            "currency": parameters.get("currency", "usd"),
            "customer": customer["id"],
            "customer_account": None,
            "date": account.now(),
            "description": parameters.get("description"),
            "discountable": True,
            "discounts": [],
            "invoice": None,
            "livemode": False,
            "metadata": dict(parameters.get("metadata") or {}),
            "net_amount": amount,
            "parent": None,
            "period": {"start": account.now(), "end": account.now()},
            "pricing": None,
            "proration": False,
            "quantity": 1,
            "quantity_decimal": "1",
            "tax_rates": [],
            "test_clock": None,
        }
    )
    account.emit("invoiceitem.created", item)
    return item


def create(account: Account, parameters: Object) -> Object:
    """`POST /v1/invoices`, of the customer's waiting items if it includes them."""
    customer = account.get("customer", parameters.get("customer", ""), "customer")
    waiting = [
        each
        for each in account.all("invoiceitem")
        if each["customer"] == customer["id"] and each["invoice"] is None
    ]
    if parameters.get("pending_invoice_items_behavior") != "include":
        waiting = []
    invoice = _new(
        account,
        customer=customer,
        currency=parameters.get("currency") or (waiting[0]["currency"] if waiting else "usd"),
        lines=[(each["description"], each["amount"], each["quantity"]) for each in waiting],
        description=parameters.get("description"),
        metadata=dict(parameters.get("metadata") or {}),
    )
    for item in waiting:
        item["invoice"] = invoice["id"]
    return invoice


def of_payment(
    account: Account, *, customer: str, intent_id: str | None, items: list[Object]
) -> Object:
    """The paid invoice that `invoice_creation` of a Checkout Session makes."""
    lines = [(each["description"], each["amount_total"], each["quantity"]) for each in items]
    currency = items[0]["currency"]
    invoice = _new(
        account, customer=account.get("customer", customer), currency=currency, lines=lines
    )
    finalize(account, {}, invoice["id"])
    _paid(account, invoice, intent_id)
    return invoice


def finalize(account: Account, _parameters: Object, object_id: str) -> Object:
    """`POST /v1/invoices/{id}/finalize`."""
    invoice = account.get("invoice", object_id)
    if invoice["status"] != "draft":
        raise refused("This invoice is already finalized, you can't re-finalize it.")
    invoice["status_transitions"]["finalized_at"] = account.now()
    return account.change(
        invoice,
        "invoice.finalized",
        status="open",
        effective_at=account.now(),
        number=account.new_id("x", 8)[2:].upper() + "-0001",
    )


def pay(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/invoices/{id}/pay`, by the named payment method or the customer's."""
    invoice = account.get("invoice", object_id)
    if invoice["status"] == "draft":
        finalize(account, {}, object_id)
    if invoice["status"] != "open":
        raise refused(f"Invoice is already {invoice['status']}", "invoice_not_editable")
    wanted = parameters.get("payment_method") or _attached(account, invoice["customer"])
    intent: Object | None = None
    if invoice["amount_remaining"]:
        if wanted is None:
            raise refused("There is no payment method to charge", "invoice_payment_intent_missing")
        method = cards.resolve(account, wanted)
        intent = payments.new_intent(
            account,
            amount=invoice["amount_remaining"],
            currency=invoice["currency"],
            customer=invoice["customer"],
            metadata={},
        )
        payments.attempt(account, intent, method)
        if intent["status"] != "succeeded":
            account.change(invoice, "invoice.payment_failed", attempted=True)
            raise (
                payments.card_error(intent)
                if intent["last_payment_error"]
                else refused(
                    f"The payment is {intent['status']}", "invoice_payment_intent_requires_action"
                )
            )
    _paid(account, invoice, intent["id"] if intent else None)
    return invoice


def void(account: Account, _parameters: Object, object_id: str) -> Object:
    """`POST /v1/invoices/{id}/void`."""
    invoice = account.get("invoice", object_id)
    if invoice["status"] != "open":
        raise refused("You can only void an open invoice")
    return account.change(invoice, "invoice.voided", status="void")


def list_invoices(account: Account, parameters: Object) -> Object:
    """`GET /v1/invoices`."""
    found = (each for each in account.all("invoice") if matches(each, parameters))
    return page(found, parameters, "/v1/invoices")


def list_payments(account: Account, parameters: Object) -> Object:
    """`GET /v1/invoice_payments`: which PaymentIntent paid which invoice."""
    found = (each for each in account.all("invoice_payment") if matches(each, parameters))
    return page(found, parameters, "/v1/invoice_payments")


def payments_of(account: Account, invoice: Object) -> Object:
    """What `expand[]=payments` shows."""
    found = [each for each in account.all("invoice_payment") if each["invoice"] == invoice["id"]]
    return list_of(found[::-1], f"/v1/invoices/{invoice['id']}/payments")


def _attached(account: Account, customer: str) -> str | None:
    methods = [each for each in account.all("payment_method") if each["customer"] == customer]
    return methods[-1]["id"] if methods else None


def _paid(account: Account, invoice: Object, intent_id: str | None) -> None:
    now = account.now()
    invoice["status_transitions"]["paid_at"] = now
    invoice |= {
        "amount_paid": invoice["amount_remaining"],
        "amount_remaining": 0,
        "attempt_count": 1,
        "attempted": True,
        "status": "paid",
    }
    if intent_id:
        payment = account.add(
            {
                "id": account.new_id("inpay"),
                "object": "invoice_payment",
                "amount_paid": invoice["amount_paid"],
                "amount_requested": invoice["amount_paid"],
                "created": now,
                "currency": invoice["currency"],
                "invoice": invoice["id"],
                "is_default": True,
                "livemode": False,
                "payment": {"payment_intent": intent_id, "type": "payment_intent"},
                "status": "paid",
                "status_transitions": {"canceled_at": None, "paid_at": now},
            }
        )
        account.emit("invoice_payment.paid", payment)
    for event_type in ("invoice.paid", "invoice.payment_succeeded"):
        account.emit(event_type, invoice)


def _new(
    account: Account,
    *,
    customer: Object,
    currency: str,
    lines: list[tuple[str | None, int, int]],
    **fields: Any,
) -> Object:
    invoice_id = account.new_id("in")
    total = sum(amount for _, amount, _ in lines)
    made = account.add(
        {
            "id": invoice_id,
            **copy.deepcopy(INVOICE),
            "object": "invoice",
            "amount_due": total,
            "amount_remaining": total,
            "created": account.now(),
            "currency": currency,
            "customer": customer["id"],
            "customer_email": customer["email"],
            "customer_name": customer["name"],
            "lines": list_of(
                [_line(account, invoice_id, currency, line) for line in lines],
                f"/v1/invoices/{invoice_id}/lines",
            ),
            "period_end": account.now(),
            "period_start": account.now(),
            "subtotal": total,
            "subtotal_excluding_tax": total,
            "total": total,
            "total_excluding_tax": total,
            **fields,
        }
    )
    account.emit("invoice.created", made)
    return made


def _line(
    account: Account, invoice_id: str, currency: str, line: tuple[str | None, int, int]
) -> Object:
    description, amount, quantity = line
    return {
        "id": account.new_id("il"),
        "object": "line_item",
        "amount": amount,
        "currency": currency,
        "description": description,
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": invoice_id,
        "livemode": False,
        "metadata": {},
        "parent": None,
        "period": {"start": account.now(), "end": account.now()},
        "pretax_credit_amounts": [],
        "pricing": None,
        "quantity": quantity,
        "quantity_decimal": str(quantity),
        "subscription": None,
        "subtotal": amount,
        "taxes": [],
    }
