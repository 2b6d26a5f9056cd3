"""Checkout Sessions: offered, paid on the pay page, paid later, expired.

The order of the events of one payment is Stripe's: payment_intent.created, charge.succeeded,
payment_intent.succeeded, checkout.session.completed.
"""

import copy
from typing import Any, cast

from src.offline_stripe import coupons, discounts, invoices, payments, totals
from src.offline_stripe.account import Account, Object
from src.offline_stripe.catalog import (
    create_price,
    merged_metadata,
    metadata_of,
    new_customer,
)
from src.offline_stripe.errors import invalid, refused
from src.offline_stripe.listing import list_of, matches, page
from src.offline_stripe.shapes import SESSION

LIFETIME_SECONDS = 86_400
LIFETIME_MIN_SECONDS = 1_800
REFERENCE_LENGTH_MAX = 200
LINE_ITEMS_MAX = 100
_KEPT = ("integration_identifier", "payment_method_collection", "phone_number_collection")


def create(account: Account, parameters: Object) -> Object:
    """`POST /v1/checkout/sessions`, mode `payment` on Stripe's own page."""
    _check(account, parameters)
    items = [
        _line_item(account, each, f"line_items[{number}]")
        for number, each in enumerate(parameters["line_items"])
    ]
    if len({each["currency"] for each in items}) > 1:
        raise invalid("All prices must have the same currency", "line_items")
    asked = discounts.asked_for(account, parameters, items)
    subtotal = sum(each["amount_subtotal"] for each in items)
    session = _new(account, parameters, currency=items[0]["currency"], subtotal=subtotal)
    session["discounts"] = asked
    totals.reckon(account, session, items)
    totals.check_payable(session)
    if session["automatic_tax"]["enabled"]:
        totals.check_taxable(account, items)
        session["automatic_tax"] |= {"provider": "stripe", "status": "requires_location_inputs"}
    private = account.private(session["id"])
    private["line_items"] = items
    private["payment_intent_data"] = parameters.get("payment_intent_data") or {}
    return account.add(session)


def complete(
    account: Account,
    session_id: str,
    method: Object,
    email: str | None = None,
    promotion_code: str | None = None,
) -> Object:
    """The customer presses the button, with this payment method and a promotion code entered.

    Raises:
        StripeError: the session is not open, or the method belongs elsewhere.
    """
    session = _open(account, session_id)
    if method["type"] not in session["payment_method_types"]:
        raise invalid(f"This session does not take {method['type']}", "payment_method")
    _identify(account, session, method, email)
    if promotion_code is not None:
        enter_code(account, session_id, promotion_code)
    _check_discounts(account, session)
    if session["automatic_tax"]["status"] == "requires_location_inputs":
        session["automatic_tax"]["status"] = "complete"
    totals.reckon(account, session, account.private(session_id)["line_items"])
    if session["payment_status"] == "no_payment_required":
        _forget_intent(account, session)
        return _finish(account, session)
    intent = _intent(account, session, method)
    payments.attempt(account, intent, method, return_url=session["success_url"])
    return _after_attempt(account, session, intent)


def enter_code(account: Account, session_id: str, promotion_code: str) -> Object:
    """The customer enters a promotion code, and sees what it takes off.

    Raises:
        StripeError: the session is not open, takes no code or is being paid, or this one is not
            for it.
    """
    session = _open(account, session_id)
    intent = account.find("payment_intent", session["payment_intent"] or "")
    if intent and intent["status"] in ("requires_action", "processing"):
        raise refused(
            "The payment is on its way: it is too late for a code.", param=discounts.PARAM
        )
    less = copy.deepcopy(account.private(session_id)["line_items"])
    found = discounts.entered(account, session, promotion_code, less)
    seen = copy.deepcopy(session) | {"discounts": found}
    totals.reckon(account, seen, less)
    totals.check_payable(seen)
    account.private(session_id)["line_items"] = less
    session |= seen
    return session


def _open(account: Account, session_id: str) -> Object:
    session = account.get("checkout.session", session_id)
    if session["status"] != "open":
        raise refused("This Checkout Session is no longer open.", "checkout_session_not_open")
    return session


def _check_discounts(account: Account, session: Object) -> None:
    """What somebody else has used up meanwhile is not redeemed once more.

    Raises:
        StripeError: it is used up, or past its time; a code that was entered is taken away again.
    """
    if discounts.can_be_redeemed(account, session["discounts"]):
        return
    if session["allow_promotion_codes"]:
        _forget_intent(account, session)
        session["discounts"] = []
        totals.reckon(account, session, account.private(session["id"])["line_items"])
    raise refused("This code can be used no more.", "coupon_expired", discounts.PARAM)


def authenticate(account: Account, session_id: str, *, passed: bool) -> Object:
    """The customer answers 3-D Secure on the pay page."""
    session = account.get("checkout.session", session_id)
    if session["payment_intent"] is None or session["status"] != "open":
        raise refused("This Checkout Session waits for no authentication.")
    intent = payments.authenticate(account, session["payment_intent"], passed=passed)
    return _after_attempt(account, session, intent)


def settle(account: Account, session_id: str, *, succeeded: bool) -> Object:
    """What became of a delayed payment, days after the session was complete."""
    session = account.get("checkout.session", session_id)
    if session["payment_intent"] is None or session["status"] != "complete":
        raise refused("This Checkout Session waits for no payment.")
    payments.settle(account, session["payment_intent"], succeeded=succeeded)
    if succeeded:
        session["payment_status"] = "paid"
        _invoice(account, session)
    outcome = "succeeded" if succeeded else "failed"
    account.emit(f"checkout.session.async_payment_{outcome}", session)
    return session


def expire(account: Account, _parameters: Object, object_id: str) -> Object:
    """`POST /v1/checkout/sessions/{id}/expire`."""
    session = account.get("checkout.session", object_id)
    if session["status"] != "open":
        raise refused(
            f'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout '
            f"Session has a status of {session['status']}."
        )
    session |= {"status": "expired", "url": None}
    if session["payment_intent"]:
        payments.cancel(account, {"cancellation_reason": "automatic"}, session["payment_intent"])
    account.emit("checkout.session.expired", session)
    return session


def update(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/checkout/sessions/{id}`: metadata.

    Raises:
        StripeError: it is to change more.
    """
    session = account.get("checkout.session", object_id)
    for name in parameters.keys() - {"metadata"}:
        raise invalid("The offline Stripe changes a session's metadata alone", name)
    return account.change(session, metadata=merged_metadata(session, parameters))


def list_sessions(account: Account, parameters: Object) -> Object:
    """`GET /v1/checkout/sessions`."""
    found = (each for each in account.all("checkout.session") if matches(each, parameters))
    return page(found, parameters, "/v1/checkout/sessions")


def list_line_items(account: Account, parameters: Object, object_id: str) -> Object:
    """`GET /v1/checkout/sessions/{id}/line_items`, in the order they were given."""
    session = account.get("checkout.session", object_id)
    items = account.private(session["id"])["line_items"]
    return page(items[::-1], parameters, f"/v1/checkout/sessions/{object_id}/line_items")


def line_items_of(account: Account, session: Object) -> Object:
    """What `expand[]=line_items` shows."""
    items = account.private(session["id"])["line_items"]
    return list_of(items, f"/v1/checkout/sessions/{session['id']}/line_items")


def _check(account: Account, parameters: Object) -> None:
    if parameters.get("mode") != "payment":
        raise invalid("The offline Stripe has sessions of mode=payment only", "mode")
    if parameters.get("ui_mode", "hosted_page") not in ("hosted", "hosted_page"):
        raise invalid("The offline Stripe has its own page only: ui_mode=hosted_page", "ui_mode")
    for name in ("line_items", "success_url"):
        if not parameters.get(name):
            raise invalid(f"Missing required param: {name}.", name, "parameter_missing")
    if len(parameters["line_items"]) > LINE_ITEMS_MAX:
        raise invalid(f"At most {LINE_ITEMS_MAX} line items", "line_items")
    for name in ("success_url", "cancel_url"):
        if not str(parameters.get(name, "https://")).startswith(("https://", "http://")):
            raise invalid(f"Not a valid URL: {parameters[name]}", name, "url_invalid")
    _check_customer(account, parameters)
    lifetime = parameters.get("expires_at", account.now() + LIFETIME_SECONDS) - account.now()
    if not LIFETIME_MIN_SECONDS <= lifetime <= LIFETIME_SECONDS:
        raise invalid(
            "The `expires_at` timestamp must be 30 minutes to 24 hours from Checkout Session "
            "creation.",
            "expires_at",
        )


def _check_customer(account: Account, parameters: Object) -> None:
    if parameters.get("customer") and parameters.get("customer_email"):
        raise invalid("You may only specify one of these parameters: customer, customer_email.")
    if customer := parameters.get("customer"):
        account.get("customer", customer, "customer")
    if len(parameters.get("client_reference_id", "")) > REFERENCE_LENGTH_MAX:
        raise invalid(f"At most {REFERENCE_LENGTH_MAX} characters", "client_reference_id")


def _line_item(account: Account, given: Object, param: str) -> Object:
    quantity = given.get("quantity", 1)
    if quantity < 1:
        raise invalid("Quantity must be 1 or more", f"{param}[quantity]")
    if data := given.get("price_data"):
        price = create_price(account, data)
    elif given.get("price"):
        price = account.get("price", given["price"], f"{param}[price]")
    else:
        raise invalid("Give price or price_data", f"{param}[price]", "parameter_missing")
    if price["recurring"]:
        raise invalid("A recurring price needs mode=subscription", f"{param}[price]")
    amount = price["unit_amount"] * quantity
    return {
        "id": account.new_id("li"),
        "object": "item",
        "adjustable_quantity": None,
        "amount_discount": 0,
        "amount_subtotal": amount,
        "amount_tax": 0,
        "amount_total": amount,
        "currency": price["currency"],
        "description": account.get("product", price["product"])["name"],
        "metadata": dict(given.get("metadata") or {}),
        "price": price,
        "quantity": quantity,
    }


def _identify(account: Account, session: Object, method: Object, email: str | None) -> None:
    details = method["billing_details"]
    if session["customer"] is None and session["customer_creation"] == "always":
        found = email or session["customer_email"] or details["email"]
        made = new_customer(account, email=found, name=details["name"])
        session["customer"] = made["id"]
    customer = account.find("customer", session["customer"]) if session["customer"] else None
    session["customer_details"] = {
        "address": details["address"],
        "business_name": None,
        "email": email
        or session["customer_email"]
        or (customer or {}).get("email")
        or details["email"],
        "individual_name": None,
        "name": details["name"] or (customer or {}).get("name"),
        "phone": details["phone"],
        "tax_exempt": "none",
        "tax_ids": [],
    }


def _intent(account: Account, session: Object, method: Object) -> Object:
    """The session's PaymentIntent; as at Stripe it is made when the customer first tries to pay."""
    if session["payment_intent"]:
        intent = account.get("payment_intent", session["payment_intent"])
        return account.change(intent, amount=session["amount_total"])
    data = account.private(session["id"])["payment_intent_data"]
    intent = payments.new_intent(
        account,
        amount=session["amount_total"],
        currency=session["currency"],
        customer=session["customer"],
        metadata=dict(data.get("metadata") or {}),
        description=data.get("description"),
        receipt_email=data.get("receipt_email"),
        shipping=data.get("shipping"),
        setup_future_usage=data.get("setup_future_usage"),
        capture_method=data.get("capture_method", "automatic_async"),
        payment_method_types=[method["type"]],
    )
    session["payment_intent"] = intent["id"]
    return intent


def _forget_intent(account: Account, session: Object) -> None:
    """What was tried before nothing was due is not charged any more."""
    if session["payment_intent"]:
        payments.cancel(account, {"cancellation_reason": "automatic"}, session["payment_intent"])
        session["payment_intent"] = None


def _after_attempt(account: Account, session: Object, intent: Object) -> Object:
    """Complete once the money came or is on its way; open still if it was refused."""
    if intent["status"] in ("succeeded", "requires_capture"):
        session["payment_status"] = "paid" if intent["status"] == "succeeded" else "unpaid"
        return _finish(account, session)
    if intent["status"] == "processing":
        return _finish(account, session)
    return session


def _finish(account: Account, session: Object) -> Object:
    session |= {"status": "complete", "url": None}
    coupons.redeem(account, session["discounts"])
    if session["payment_status"] == "paid":
        _invoice(account, session)
    account.emit("checkout.session.completed", session)
    return session


def _invoice(account: Account, session: Object) -> None:
    if session["invoice_creation"] and session["invoice_creation"]["enabled"]:
        items = account.private(session["id"])["line_items"]
        session["invoice"] = invoices.of_payment(
            account, customer=session["customer"], intent_id=session["payment_intent"], items=items
        )["id"]


def _switched(account: Account, parameters: Object, *names: str) -> Object:
    """What a request switches on or off; what it leaves open the account decides."""
    asked = {name: cast("dict[str, Any]", parameters.get(name) or {}) for name in names}
    return {
        name: {
            **cast("dict[str, Any]", SESSION.get(name) or {}),
            "enabled": bool(given.get("enabled", account.defaults[name])),
        }
        for name, given in asked.items()
    }


def _new(account: Account, parameters: Object, *, currency: str, subtotal: int) -> Object:
    session_id = account.new_id("cs_test", 58)
    given = cast("dict[str, Any]", parameters.get("invoice_creation") or {})
    invoiced = bool(given.get("enabled"))
    return {
        **copy.deepcopy(SESSION),
        "id": session_id,
        "object": "checkout.session",
        **_switched(account, parameters, "adaptive_pricing", "automatic_tax", "managed_payments"),
        "allow_promotion_codes": parameters.get("allow_promotion_codes"),
        "allowed_payment_method_types": parameters.get("allowed_payment_method_types"),
        "amount_subtotal": subtotal,
        "amount_total": subtotal,
        "billing_address_collection": parameters.get("billing_address_collection"),
        "cancel_url": parameters.get("cancel_url"),
        "client_reference_id": parameters.get("client_reference_id"),
        "created": account.now(),
        "currency": currency,
        "customer": parameters.get("customer"),
        "customer_creation": None
        if parameters.get("customer")
        else parameters.get("customer_creation", "always" if invoiced else "if_required"),
        "customer_email": parameters.get("customer_email"),
        "expires_at": parameters.get("expires_at", account.now() + LIFETIME_SECONDS),
        "invoice_creation": {
            "enabled": invoiced,
            "invoice_data": {
                **dict.fromkeys(
                    ("account_tax_ids", "custom_fields", "description", "footer", "issuer")
                ),
                "metadata": {},
                "rendering_options": None,
            },
        },
        **{name: parameters[name] for name in _KEPT if name in parameters},
        "locale": parameters.get("locale"),
        "metadata": metadata_of(parameters),
        "payment_method_types": parameters.get("payment_method_types")
        or parameters.get("allowed_payment_method_types")
        or account.defaults["payment_method_types"],
        "submit_type": parameters.get("submit_type"),
        "success_url": parameters["success_url"],
        "url": f"{account.public_url}/c/pay/{session_id}",
    }
