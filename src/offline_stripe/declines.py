"""Payments that are declined: what the PaymentIntent says then, and the answer to the request."""

import copy

from src.offline_stripe import charges
from src.offline_stripe.account import Account, Object
from src.offline_stripe.cards import method_of
from src.offline_stripe.errors import StripeError

PAYMENT_REQUIRED = 402


def decline(account: Account, intent: Object, method: Object, code: str) -> None:
    """Nothing was charged: the customer is asked for another payment method."""
    messages = {
        "payment_intent_authentication_failure": "The provided PaymentMethod has failed "
        "authentication. You can provide payment_method_data or a new PaymentMethod to attempt to "
        "fulfill this PaymentIntent again.",
        **charges.DECLINE_MESSAGES,
    }
    error = {"code": code, "message": messages[code], "type": "invalid_request_error"}
    if code == "authentication_required":
        error |= {"type": "card_error", "decline_code": code}
    _fail(account, intent, method, error)


def card_error(intent: Object) -> StripeError:
    """The answer to a payment that was declined."""
    error = dict(intent["last_payment_error"])
    error["payment_intent"] = copy.deepcopy(intent)
    return StripeError(
        error.pop("message"),
        status=PAYMENT_REQUIRED,
        kind=error.pop("type"),
        code=error.pop("code"),
        executed=True,
        **error,
    )


def note_decline(account: Account, intent: Object, method: Object) -> None:
    """The bank declined the charge; another payment method is asked for."""
    charged = account.get("charge", intent["latest_charge"])
    error = {
        "charge": charged["id"],
        "code": charged["failure_code"],
        "message": charged["failure_message"],
        "type": "card_error",
    }
    if code := method_of(account, method).decline_code:
        error["decline_code"] = code
    _fail(account, intent, method, error)


def _fail(account: Account, intent: Object, method: Object, error: Object) -> None:
    account.change(
        intent,
        "payment_intent.payment_failed",
        status="requires_payment_method",
        payment_method=None,
        last_payment_error=error | {"payment_method": copy.deepcopy(method)},
        next_action=None,
    )
