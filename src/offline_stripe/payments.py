"""PaymentIntents: created, confirmed, authenticated, waited for, captured, cancelled."""

import copy
from typing import Any

from src.offline_stripe import charges, declines, disputes
from src.offline_stripe.account import Account, Object
from src.offline_stripe.amounts import check_amount
from src.offline_stripe.cards import Behaviour, method_of, resolve
from src.offline_stripe.catalog import merged_metadata, metadata_of
from src.offline_stripe.errors import StripeError, refused
from src.offline_stripe.listing import matches, page

_DELAYED = (Behaviour.DELAY, Behaviour.DELAY_AND_FAIL, Behaviour.DELAY_AND_DISPUTE)
_DISPUTED = (Behaviour.DISPUTE, Behaviour.INQUIRE, Behaviour.DELAY_AND_DISPUTE)
_UNFINISHED = (
    "requires_payment_method",
    "requires_capture",
    "requires_confirmation",
    "requires_action",
    "processing",
)
_MONEY = {"amount", "currency", "capture_method"}
_CHANGEABLE = (
    *sorted(_MONEY),
    "customer",
    "description",
    "receipt_email",
    "setup_future_usage",
    "shipping",
    "statement_descriptor",
    "statement_descriptor_suffix",
    "transfer_group",
)
_KEPT = (
    "automatic_payment_methods",
    "confirmation_method",
    "excluded_payment_method_types",
    "statement_descriptor",
    "statement_descriptor_suffix",
    "transfer_group",
)
_CONFIRMABLE = ("requires_payment_method", "requires_confirmation", "requires_action")


def create(account: Account, parameters: Object) -> Object:
    """`POST /v1/payment_intents`."""
    amount = parameters["amount"]
    currency = parameters["currency"].lower()
    check_amount(amount, currency)
    if customer := parameters.get("customer"):
        account.get("customer", customer, "customer")
    method = _method(account, parameters)
    intent = new_intent(
        account,
        amount=amount,
        currency=currency,
        customer=customer,
        metadata=metadata_of(parameters),
        description=parameters.get("description"),
        receipt_email=parameters.get("receipt_email"),
        shipping=parameters.get("shipping"),
        setup_future_usage=parameters.get("setup_future_usage"),
        capture_method=parameters.get("capture_method", "automatic_async"),
        allowed_payment_method_types=parameters.get("allowed_payment_method_types"),
        payment_method_types=parameters.get("payment_method_types")
        or parameters.get("allowed_payment_method_types")
        or ["card"],
        payment_method=method["id"] if method else None,
        **{name: parameters[name] for name in _KEPT if name in parameters},
        status="requires_confirmation" if method else "requires_payment_method",
    )
    if parameters.get("confirm"):
        _confirm(account, intent, method, parameters)
    return intent


def new_intent(account: Account, **fields: Any) -> Object:
    """A PaymentIntent with these fields, and the event that says so."""
    intent_id = account.new_id("pi")
    intent: Object = {
        "id": intent_id,
        "object": "payment_intent",
        "allowed_payment_method_types": None,
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": None,
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": "automatic_async",
        "client_secret": account.new_id(f"{intent_id}_secret"),
        "confirmation_method": "automatic",
        "created": account.now(),
        "customer_account": None,
        "description": None,
        "excluded_payment_method_types": None,
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "managed_payments": None,
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_configuration_details": None,
        "payment_method_options": {},
        "payment_method_types": ["card"],
        "payment_record": None,
        "processing": None,
        "receipt_email": None,
        "review": None,
        "setup_future_usage": None,
        "shipping": None,
        "source": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "requires_payment_method",
        "transfer_data": None,
        "transfer_group": None,
        **fields,
    }
    account.emit("payment_intent.created", account.add(intent))
    return intent


def update(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/payment_intents/{id}`; Stripe makes no event of it.

    Raises:
        StripeError: the payment is on its way or over, and it is not only about metadata.
    """
    intent = account.get("payment_intent", object_id)
    metadata = merged_metadata(intent, parameters)
    fields: Object = {name: parameters[name] or None for name in _CHANGEABLE if name in parameters}
    if method := _method(account, parameters):
        fields["payment_method"] = method["id"]
        if intent["status"] == "requires_payment_method":
            fields["status"] = "requires_confirmation"
    if (fields.keys() & _MONEY or method) and intent["status"] not in _CONFIRMABLE:
        raise _unexpected_state(intent, "update")
    if customer := fields.get("customer"):
        account.get("customer", customer, "customer")
    if fields.keys() & {"amount", "currency"}:
        asked = intent | parameters
        fields["currency"] = asked["currency"].lower()
        check_amount(asked["amount"], fields["currency"])
    return account.change(intent, metadata=metadata, **fields)


def confirm(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/payment_intents/{id}/confirm`."""
    intent = account.get("payment_intent", object_id)
    if intent["status"] not in _CONFIRMABLE:
        raise _unexpected_state(intent, "confirm")
    if any(each["payment_intent"] == object_id for each in account.all("checkout.session")):
        raise refused(
            "A Checkout Session made this PaymentIntent: it is paid on the session's page"
        )
    method = _method(account, parameters)
    if method is None and intent["payment_method"]:
        method = account.get("payment_method", intent["payment_method"])
    _confirm(account, intent, method, parameters)
    return intent


def _confirm(account: Account, intent: Object, method: Object | None, parameters: Object) -> None:
    if method is None:
        raise refused(
            "You cannot confirm this PaymentIntent because it's missing a payment method.",
            "payment_intent_unexpected_state",
        )
    behaviour = method_of(account, method).behaviour
    if behaviour is Behaviour.AUTHENTICATE and (
        parameters.get("off_session") or parameters.get("error_on_requires_action")
    ):
        declines.decline(account, intent, method, "authentication_required")
    else:
        attempt(account, intent, method, return_url=parameters.get("return_url"))
    if intent["last_payment_error"]:
        raise declines.card_error(intent)


def attempt(
    account: Account, intent: Object, method: Object, *, return_url: str | None = None
) -> None:
    """Charge the payment method; what comes of it is in the intent's status."""
    intent |= {"payment_method": method["id"], "last_payment_error": None, "next_action": None}
    behaviour = method_of(account, method).behaviour
    if behaviour is Behaviour.DECLINE:
        charges.charge(account, intent, method, status="failed")
        declines.note_decline(account, intent, method)
    elif behaviour is Behaviour.AUTHENTICATE:
        page_url = f"{account.public_url}/authenticate/{intent['id']}"
        redirect = {"return_url": return_url, "url": page_url}
        account.change(
            intent,
            "payment_intent.requires_action",
            status="requires_action",
            next_action={"redirect_to_url": redirect, "type": "redirect_to_url"},
        )
    elif behaviour in _DELAYED:
        account.change(intent, status="processing")
        charges.charge(account, intent, method, status="pending")
        account.emit("payment_intent.processing", intent)
    else:
        _succeed(account, intent, method)


def authenticate(account: Account, intent_id: str, *, passed: bool) -> Object:
    """What 3-D Secure found.

    Raises:
        StripeError: the intent does not wait for it.
    """
    intent = account.get("payment_intent", intent_id)
    if intent["status"] != "requires_action":
        raise _unexpected_state(intent, "authenticate")
    method = account.get("payment_method", intent["payment_method"])
    intent["next_action"] = None
    if passed:
        _succeed(account, intent, method)
    else:
        declines.decline(account, intent, method, "payment_intent_authentication_failure")
    return intent


def settle(account: Account, intent_id: str, *, succeeded: bool) -> Object:
    """What became of a delayed payment.

    Raises:
        StripeError: the intent is not `processing`.
    """
    intent = account.get("payment_intent", intent_id)
    if intent["status"] != "processing":
        raise _unexpected_state(intent, "settle")
    charged = account.get("charge", intent["latest_charge"])
    method = account.get("payment_method", intent["payment_method"])
    if succeeded:
        charges.capture(account, charged)
        account.emit("charge.succeeded", charged)
        _received(account, intent)
        _dispute(account, method, charged)
    else:
        charges.fail(account, charged, method_of(account, method))
        declines.note_decline(account, intent, method)
    return intent


def capture_charge(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/charges/{id}/capture`: its PaymentIntent is captured.

    Raises:
        StripeError: charge_already_captured, or the charge took nothing.
    """
    charged = account.get("charge", object_id)
    if charged["captured"]:
        raise refused(f"Charge {object_id} has already been captured.", "charge_already_captured")
    asked = {"amount_to_capture": parameters["amount"]} if "amount" in parameters else {}
    capture(account, asked, charged["payment_intent"])
    return charged


def capture(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/payment_intents/{id}/capture`."""
    intent = account.get("payment_intent", object_id)
    if intent["status"] != "requires_capture":
        raise _unexpected_state(intent, "capture")
    capturable: int = intent["amount_capturable"]
    amount: int = parameters.get("amount_to_capture") or capturable
    if not 1 <= amount <= capturable:
        raise refused("Amount to capture is more than is capturable", "amount_too_large")
    charged = account.get("charge", intent["latest_charge"])
    charges.capture(account, charged, amount)
    account.emit("charge.captured", charged)
    for session in account.all("checkout.session"):
        if session["payment_intent"] == object_id:
            session["payment_status"] = "paid"
    _received(account, intent)
    return intent


def cancel(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/payment_intents/{id}/cancel`."""
    intent = account.get("payment_intent", object_id)
    if intent["status"] not in _UNFINISHED or intent["status"] == "processing":
        raise _unexpected_state(intent, "cancel")
    return account.change(
        intent,
        "payment_intent.canceled",
        status="canceled",
        amount_capturable=0,
        canceled_at=account.now(),
        cancellation_reason=parameters.get("cancellation_reason"),
        next_action=None,
    )


def list_intents(account: Account, parameters: Object) -> Object:
    """`GET /v1/payment_intents`."""
    found = (each for each in account.all("payment_intent") if matches(each, parameters))
    return page(found, parameters, "/v1/payment_intents")


def _succeed(account: Account, intent: Object, method: Object) -> None:
    charged = charges.charge(account, intent, method, status="succeeded")
    if intent["capture_method"] == "manual":
        account.change(
            intent,
            "payment_intent.amount_capturable_updated",
            status="requires_capture",
            amount_capturable=intent["amount"],
        )
        return
    _received(account, intent)
    _dispute(account, method, charged)


def _dispute(account: Account, method: Object, charged: Object) -> None:
    behaviour = method_of(account, method).behaviour
    if behaviour in _DISPUTED:
        disputes.open_dispute(account, charged["id"], inquiry=behaviour is Behaviour.INQUIRE)


def _received(account: Account, intent: Object) -> None:
    charged = account.get("charge", intent["latest_charge"])
    account.change(
        intent,
        "payment_intent.succeeded",
        status="succeeded",
        amount_capturable=0,
        amount_received=charged["amount_captured"],
    )


def _method(account: Account, parameters: Object) -> Object | None:
    wanted = parameters.get("payment_method")
    return resolve(account, wanted) if wanted else None


def _unexpected_state(intent: Object, verb: str) -> StripeError:
    return StripeError(
        f"You cannot {verb} this PaymentIntent because it has a status of {intent['status']}.",
        code="payment_intent_unexpected_state",
        executed=True,
        payment_intent=copy.deepcopy(intent),
    )
