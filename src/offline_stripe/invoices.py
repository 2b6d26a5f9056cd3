"""Invoices: drafted, finalized, sent, paid, voided; of items, or of a Checkout Session."""

import contextlib
import copy

from src.offline_stripe import cards, declines, invoice_items, payments
from src.offline_stripe.account import Account, Object
from src.offline_stripe.amounts import check_amount
from src.offline_stripe.catalog import merged_metadata, metadata_of
from src.offline_stripe.errors import StripeError, invalid, refused
from src.offline_stripe.listing import list_of, matches, page
from src.offline_stripe.shapes import INVOICE

FINALIZED_AFTER_SECONDS = 3_600
"""How long a draft waits that Stripe finalizes by itself (`auto_advance`)."""
_DAY_SECONDS = 86_400
_CHANGEABLE = ("description", "footer")
_CHANGEABLE_DRAFT = ("auto_advance", "collection_method", "due_date")
_NOT_PREVIEWED = ("schedule", "schedule_details", "subscription", "subscription_details")


def create(account: Account, parameters: Object) -> Object:
    """`POST /v1/invoices`, of the customer's waiting items if it includes them.

    Raises:
        StripeError: no customer, or one that is to be sent without an address or a day.
    """
    customer = account.get("customer", parameters.get("customer", ""), "customer")
    items: list[Object] = []
    if parameters.get("pending_invoice_items_behavior") == "include":
        items = invoice_items.waiting(account, customer["id"], parameters.get("currency"))
    invoice = account.add(
        _built(account, customer, items, currency=parameters.get("currency"))
        | _collected(account, customer, parameters)
        | {
            "auto_advance": parameters.get("auto_advance", False),
            "description": parameters.get("description"),
            "footer": parameters.get("footer"),
            "metadata": metadata_of(parameters),
        }
    )
    for item in items:
        item["invoice"] = invoice["id"]
    account.emit("invoice.created", invoice)
    return invoice


def preview(account: Account, parameters: Object) -> Object:
    """`POST /v1/invoices/create_preview`: what the customer's next invoice would be; not kept.

    Raises:
        StripeError: no customer, or it is about a subscription.
    """
    for name in _NOT_PREVIEWED:
        if parameters.get(name):
            raise invalid("The offline Stripe has no subscriptions", name)
    customer = account.get("customer", parameters.get("customer", ""), "customer")
    given: list[Object] = parameters.get("invoice_items") or []
    added = [invoice_items.built(account, each) for each in given]
    wanted = parameters.get("currency") or (added[0]["currency"] if added else None)
    items = invoice_items.waiting(account, customer["id"], wanted)
    invoice = _built(account, customer, items, currency=wanted)
    for number, item in enumerate(added):
        invoice_items.check_currency(invoice, item, f"invoice_items[{number}][currency]")
    invoice_items.total_up(account, invoice, items + added)
    invoice["id"] = f"upcoming_{invoice['id']}"
    return invoice


def of_payment(
    account: Account, *, customer: str, intent_id: str | None, items: list[Object]
) -> Object:
    """The paid invoice that `invoice_creation` of a Checkout Session makes."""
    lines = [
        invoice_items.built(
            account,
            {
                "amount": each["amount_total"],
                "currency": each["currency"],
                "description": each["description"],
            },
        )
        | {"quantity": each["quantity"], "quantity_decimal": str(each["quantity"])}
        for each in items
    ]
    invoice = account.add(_built(account, account.get("customer", customer), lines))
    account.emit("invoice.created", invoice)
    finalize(account, {}, invoice["id"])
    _paid(account, invoice, intent_id)
    return invoice


def update(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/invoices/{id}`: a draft, or the words of a finalized one."""
    invoice = account.get("invoice", object_id)
    given = [name for name in _CHANGEABLE_DRAFT if name in parameters]
    if given and invoice["status"] != "draft":
        raise refused(f"A finalized invoice keeps its {given[0]}", "invoice_not_editable", given[0])
    names = (*_CHANGEABLE, *given)
    fields = {name: parameters[name] for name in names if name in parameters}
    metadata = merged_metadata(invoice, parameters)
    return account.change(invoice, "invoice.updated", metadata=metadata, **fields)


def delete(account: Account, _parameters: Object, object_id: str) -> Object:
    """`DELETE /v1/invoices/{id}`: a draft; its items wait for another."""
    invoice = _in_status(account, object_id, "draft", verb="delete")
    for item in account.all("invoiceitem"):
        if item.get("invoice") == object_id:
            item["invoice"] = None
    account.emit("invoice.deleted", invoice)
    invoice.clear()
    invoice |= {"id": object_id, "object": "invoice", "deleted": True}
    return invoice


def finalize(account: Account, _parameters: Object, object_id: str) -> Object:
    """`POST /v1/invoices/{id}/finalize`; one that comes to nothing is paid then.

    Raises:
        StripeError: it is no draft, or comes to an amount that cannot be charged.
    """
    invoice = account.get("invoice", object_id)
    if invoice["status"] != "draft":
        raise refused("This invoice is already finalized, you can't re-finalize it.")
    if invoice["total"]:
        check_amount(invoice["total"], invoice["currency"], says="The invoice must come to")
    invoice["status_transitions"]["finalized_at"] = account.now()
    account.change(
        invoice,
        "invoice.finalized",
        status="open",
        effective_at=account.now(),
        number=account.new_id("x", 8)[2:].upper() + "-0001",
    )
    if not invoice["amount_remaining"]:
        _paid(account, invoice, None)
    return invoice


def send(account: Account, _parameters: Object, object_id: str) -> Object:
    """`POST /v1/invoices/{id}/send`: finalized if it is a draft; no e-mail is written."""
    invoice = account.get("invoice", object_id)
    if invoice["status"] == "draft":
        finalize(account, {}, object_id)
    _in_status(account, object_id, "open", verb="send")
    if invoice["collection_method"] != "send_invoice":
        raise refused("You can only send an invoice of collection_method=send_invoice")
    account.emit("invoice.sent", invoice)
    return invoice


def pay(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/invoices/{id}/pay`, by the named payment method, the customer's, or elsewhere."""
    invoice = account.get("invoice", object_id)
    if invoice["status"] == "draft":
        finalize(account, {}, object_id)
        if not invoice["amount_remaining"]:
            return invoice
    if invoice["status"] != "open":
        raise refused(f"Invoice is already {invoice['status']}", "invoice_not_editable")
    if not invoice["amount_remaining"] or parameters.get("paid_out_of_band"):
        _cancel_intent(account, invoice, "automatic")
        _paid(account, invoice, None)
        return invoice
    wanted = parameters.get("payment_method") or _attached(account, invoice["customer"])
    if wanted is None:
        raise refused("There is no payment method to charge", "invoice_payment_intent_missing")
    intent = _attempt(account, invoice, cards.resolve(account, wanted))
    if intent["status"] == "succeeded":
        _paid(account, invoice, intent["id"])
    return invoice


def confirm_payment(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/payment_intents/{id}/confirm`, also of an invoice's."""
    intent = payments.confirm(account, parameters, object_id)
    note_payment(account, intent)
    return intent


def note_payment(account: Account, intent: Object) -> None:
    """What became of a payment that an invoice waited for, if one did."""
    invoice = account.find("invoice", account.private(intent["id"]).get("invoice", ""))
    if invoice is None or invoice["status"] not in ("open", "uncollectible"):
        return
    if intent["status"] == "succeeded":
        _paid(account, invoice, intent["id"])
    elif intent["last_payment_error"]:
        account.change(invoice, "invoice.payment_failed", attempted=True)


def void(account: Account, _parameters: Object, object_id: str) -> Object:
    """`POST /v1/invoices/{id}/void`."""
    invoice = _in_status(account, object_id, "open", "uncollectible", verb="void")
    _cancel_intent(account, invoice, "void_invoice")
    invoice["status_transitions"]["voided_at"] = account.now()
    return account.change(invoice, "invoice.voided", status="void")


def mark_uncollectible(account: Account, _parameters: Object, object_id: str) -> Object:
    """`POST /v1/invoices/{id}/mark_uncollectible`."""
    invoice = _in_status(account, object_id, "open", verb="mark uncollectible")
    invoice["status_transitions"]["marked_uncollectible_at"] = account.now()
    return account.change(invoice, "invoice.marked_uncollectible", status="uncollectible")


def due(account: Account) -> list[Object]:
    """Drafts that Stripe finalizes by itself now, an hour after they were made."""
    latest = account.now() - FINALIZED_AFTER_SECONDS
    return [
        each
        for each in account.all("invoice")
        if each.get("status") == "draft" and each["auto_advance"] and each["created"] <= latest
    ]


def advance(account: Account, invoice_id: str) -> None:
    """Finalize a draft, and charge or send it."""
    invoice = finalize(account, {}, invoice_id)
    collect = send if invoice["collection_method"] == "send_invoice" else pay
    with contextlib.suppress(StripeError):  # its events say so, and it stays open
        collect(account, {}, invoice_id)


def list_invoices(account: Account, parameters: Object) -> Object:
    """`GET /v1/invoices`."""
    found = (each for each in account.all("invoice") if matches(each, parameters))
    return page(found, parameters, "/v1/invoices")


def list_lines(account: Account, parameters: Object, object_id: str) -> Object:
    """`GET /v1/invoices/{id}/lines`, in their order."""
    lines = account.get("invoice", object_id)["lines"]["data"]
    return page(lines[::-1], parameters, f"/v1/invoices/{object_id}/lines")


def list_payments(account: Account, parameters: Object) -> Object:
    """`GET /v1/invoice_payments`: which PaymentIntent paid which invoice."""
    found = (each for each in account.all("invoice_payment") if matches(each, parameters))
    return page(found, parameters, "/v1/invoice_payments")


def payments_of(account: Account, invoice: Object) -> Object:
    """What `expand[]=payments` shows."""
    found = [each for each in account.all("invoice_payment") if each["invoice"] == invoice["id"]]
    return list_of(found[::-1], f"/v1/invoices/{invoice['id']}/payments")


def _in_status(account: Account, object_id: str, *statuses: str, verb: str) -> Object:
    invoice = account.get("invoice", object_id)
    if invoice["status"] not in statuses:
        raise refused(
            f"You can only {verb} an invoice that is {' or '.join(statuses)}; this one is "
            f"{invoice['status']}"
        )
    return invoice


def _collected(account: Account, customer: Object, parameters: Object) -> Object:
    """How its money is asked for: charged, or a bill sent that is due on a day."""
    method = parameters.get("collection_method", "charge_automatically")
    days: int | None = parameters.get("days_until_due")
    due_date: int | None = parameters.get("due_date")
    if method == "charge_automatically":
        if days is not None or due_date is not None:
            raise invalid(
                "You can only specify days_until_due or due_date if the collection method is "
                "send_invoice.",
                "due_date" if days is None else "days_until_due",
            )
        return {"collection_method": method}
    if not customer["email"]:
        raise invalid(
            "Missing email. In order to create invoices that are sent to the customer, the "
            "customer must have a valid email.",
            "customer",
        )
    if days is not None and due_date is None:
        due_date = account.now() + days * _DAY_SECONDS
    elif due_date is None or days is not None:
        raise invalid("You must pass either days_until_due or due_date.", "days_until_due")
    return {"collection_method": method, "due_date": due_date}


def _attempt(account: Account, invoice: Object, method: Object) -> Object:
    """Charge for an invoice: by one PaymentIntent, however often it is tried."""
    check_amount(invoice["amount_remaining"], invoice["currency"])
    intent = _intent(account, invoice)
    if intent is None:
        intent = payments.new_intent(
            account,
            amount=invoice["amount_remaining"],
            currency=invoice["currency"],
            customer=invoice["customer"],
            metadata={},
        )
        account.private(intent["id"])["invoice"] = invoice["id"]
        account.private(invoice["id"])["payment_intent"] = intent["id"]
    account.change(intent, amount=invoice["amount_remaining"])
    payments.attempt(account, intent, method)
    if intent["status"] in ("succeeded", "processing"):
        return intent
    account.change(invoice, "invoice.payment_failed", attempted=True)
    if intent["last_payment_error"]:
        raise declines.card_error(intent)
    account.emit("invoice.payment_action_required", invoice)
    raise StripeError(
        f"The payment is {intent['status']}",
        status=declines.PAYMENT_REQUIRED,
        kind="card_error",
        code="invoice_payment_intent_requires_action",
        executed=True,
    )


def _intent(account: Account, invoice: Object) -> Object | None:
    """The PaymentIntent that has not paid it yet, if there is one.

    Raises:
        StripeError: it is on its way.
    """
    intent_id = account.private(invoice["id"]).get("payment_intent")
    intent = account.get("payment_intent", intent_id) if intent_id else None
    if intent is None or intent["status"] == "canceled":
        return None
    if intent["status"] == "processing":
        raise refused("A payment of this invoice is on its way: wait for what becomes of it")
    return intent


def _cancel_intent(account: Account, invoice: Object, reason: str) -> None:
    """Nothing is to be charged for it any more."""
    if intent := _intent(account, invoice):
        payments.cancel(account, {"cancellation_reason": reason}, intent["id"])


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


def _built(
    account: Account, customer: Object, items: list[Object], currency: str | None = None
) -> Object:
    """A draft of these items, not kept yet."""
    invoice_id = account.new_id("in")
    invoice: Object = {
        "id": invoice_id,
        **copy.deepcopy(INVOICE),
        "object": "invoice",
        "created": account.now(),
        "currency": (currency or (items[0]["currency"] if items else "usd")).lower(),
        "customer": customer["id"],
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "lines": list_of([], f"/v1/invoices/{invoice_id}/lines"),
        "period_end": account.now(),
        "period_start": account.now(),
        "test_clock": customer["test_clock"],
    }
    invoice_items.total_up(account, invoice, items)
    return invoice
