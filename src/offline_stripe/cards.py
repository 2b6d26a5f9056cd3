"""Test payment methods: what each of Stripe's test cards and accounts does when it is charged.

Source: Stripe's documentation, "Test card numbers" (numbers, tokens, PaymentMethods).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from src.offline_stripe.account import Account, Object
from src.offline_stripe.catalog import merged_metadata
from src.offline_stripe.errors import invalid, missing_object, refused
from src.offline_stripe.listing import matches, page


class Behaviour(StrEnum):
    """What happens when a method is charged."""

    SUCCEED = "succeed"
    DECLINE = "decline"
    AUTHENTICATE = "authenticate"
    """3-D Secure is asked for first."""
    DELAY = "delay"
    """Confirmed days later: the payment is `processing` until then."""
    DELAY_AND_FAIL = "delay_and_fail"
    DELAY_AND_DISPUTE = "delay_and_dispute"
    DISPUTE = "dispute"
    INQUIRE = "inquire"
    REFUND_PENDS = "refund_pends"
    REFUND_FAILS = "refund_fails"
    BYPASS_PENDING = "bypass_pending"
    """The funds are available at once."""


@dataclass(frozen=True)
class TestMethod:
    """One row of Stripe's tables."""

    behaviour: Behaviour
    number: str
    brand: str = "visa"
    decline_code: str | None = None

    @property
    def is_card(self) -> bool:
        """Otherwise it is a SEPA account."""
        return self.number.isdigit()


_CARD = TestMethod(Behaviour.SUCCEED, "4242424242424242")
METHODS = {
    "visa": _CARD,
    "mastercard": TestMethod(Behaviour.SUCCEED, "5555555555554444", "mastercard"),
    "amex": TestMethod(Behaviour.SUCCEED, "378282246310005", "amex"),
    "chargeDeclined": TestMethod(
        Behaviour.DECLINE, "4000000000000002", decline_code="generic_decline"
    ),
    "chargeDeclinedInsufficientFunds": TestMethod(
        Behaviour.DECLINE, "4000000000009995", decline_code="insufficient_funds"
    ),
    "chargeDeclinedLostCard": TestMethod(
        Behaviour.DECLINE, "4000000000009987", decline_code="lost_card"
    ),
    "chargeDeclinedFraudulent": TestMethod(
        Behaviour.DECLINE, "4100000000000019", decline_code="fraudulent"
    ),
    "authenticationRequired": TestMethod(Behaviour.AUTHENTICATE, "4000002760003184"),
    "threeDSecure2Required": TestMethod(Behaviour.AUTHENTICATE, "4000000000003220"),
    "threeDSecureRequired": TestMethod(Behaviour.AUTHENTICATE, "4000000000003063"),
    "createDispute": TestMethod(Behaviour.DISPUTE, "4000000000000259"),
    "createDisputeInquiry": TestMethod(Behaviour.INQUIRE, "4000000000001976"),
    "pendingRefund": TestMethod(Behaviour.REFUND_PENDS, "4000000000007726"),
    "refundFail": TestMethod(Behaviour.REFUND_FAILS, "4000000000005126"),
    "bypassPending": TestMethod(Behaviour.BYPASS_PENDING, "4000000000000077"),
    "sepa": TestMethod(Behaviour.DELAY, "AT611904300234573201"),
    "sepaFails": TestMethod(Behaviour.DELAY_AND_FAIL, "AT861904300235473202"),
    "sepaDisputed": TestMethod(Behaviour.DELAY_AND_DISPUTE, "AT591904300235473203"),
}
_ALIASES = {f"visa_{name}": name for name in METHODS} | {
    "refundPending": "pendingRefund",
    "chargeCustomerFail": "chargeDeclined",
}
_BY_NUMBER = {method.number: name for name, method in METHODS.items()} | {
    "IT60X0542811101000000123456": "sepaFails",  # the command line's own example of a failure
    "IT40S0542811101000000123457": "sepa",
    "AT321904300235473204": "sepa",
    "AT051904300235473205": "sepaFails",
}
_PREFIXES = ("pm_card_", "pm_", "tok_")


def method_of(account: Account, payment_method: Object) -> TestMethod:
    """What the payment method will do."""
    return METHODS[account.private(payment_method["id"])["method"]]


def make_method(account: Account, name: str, **fields: Any) -> Object:
    """A payment method that acts like the test method of this name."""
    method = METHODS[name]
    billing: Object = {"address": _no_address(), "email": None, "name": None, "phone": None}
    details: Object = fields.pop("billing_details", None) or {}
    address: Object = billing["address"] | (details.get("address") or {})
    kind = "card" if method.is_card else "sepa_debit"
    made = account.add(
        {
            "id": account.new_id("pm"),
            "object": "payment_method",
            "allow_redisplay": "unspecified",
            "billing_details": billing | details | {"address": address, "tax_id": None},
            "created": account.now(),
            "customer": None,
            "customer_account": None,
            "livemode": False,
            "metadata": {},
            "type": kind,
            kind: _card(method) if method.is_card else _sepa(method),
            **fields,
        }
    )
    account.private(made["id"])["method"] = name
    return made


def create(account: Account, parameters: Object) -> Object:
    """`POST /v1/payment_methods`, of a card or a SEPA account."""
    details = parameters.get("billing_details")
    metadata: Object = parameters.get("metadata") or {}
    if parameters.get("type") == "card":
        card: Object = parameters.get("card") or {}
        name = _name(card.get("token") or "") or _BY_NUMBER.get(card.get("number", "").strip())
        param = "card"
    elif parameters.get("type") == "sepa_debit":
        account_details: Object = parameters.get("sepa_debit") or {}
        iban = str(account_details.get("iban", "")).replace(" ", "")
        name, param = _BY_NUMBER.get(iban), "sepa_debit[iban]"
    else:
        raise invalid("The offline Stripe makes payment methods of card and sepa_debit", "type")
    if name is None:
        raise invalid("No test card or account of Stripe's documentation", param)
    return make_method(account, name, billing_details=details, metadata=metadata)


def attach(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/payment_methods/{id}/attach`; a test method's name makes a new one."""
    account.get("customer", parameters["customer"], "customer")
    method = resolve(account, object_id)
    if account.private(method["id"]).get("detached"):
        raise refused(
            "This PaymentMethod was previously used without being attached to a Customer or was "
            "detached from a Customer, and may not be used again."
        )
    return account.change(method, "payment_method.attached", customer=parameters["customer"])


def update(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/payment_methods/{id}`: its billing details and metadata."""
    method = account.get("payment_method", object_id)
    details: Object = parameters.get("billing_details") or {}
    before: Object = method["billing_details"]
    address: Object = before["address"] | (details.get("address") or {})
    return account.change(
        method,
        "payment_method.updated",
        billing_details=before | details | {"address": address},
        metadata=merged_metadata(method, parameters),
    )


def detach(account: Account, _parameters: Object, object_id: str) -> Object:
    """`POST /v1/payment_methods/{id}/detach`: for good.

    Raises:
        StripeError: it is no customer's.
    """
    method = account.get("payment_method", object_id)
    if method["customer"] is None:
        raise refused(
            "The payment method you provided is not attached to a customer so detachment is "
            "impossible.",
            param="payment_method",
        )
    account.private(object_id)["detached"] = True
    return account.change(method, "payment_method.detached", customer=None)


def list_of_customer(account: Account, parameters: Object, object_id: str) -> Object:
    """`GET /v1/customers/{id}/payment_methods`."""
    account.get("customer", object_id)
    wanted = {**parameters, "customer": object_id}
    found = (each for each in account.all("payment_method") if matches(each, wanted))
    return page(found, parameters, f"/v1/customers/{object_id}/payment_methods")


def of_customer(account: Account, _parameters: Object, customer: str, object_id: str) -> Object:
    """`GET /v1/customers/{id}/payment_methods/{id}`."""
    account.get("customer", customer)
    method = account.get("payment_method", object_id)
    if method["customer"] != customer:
        raise missing_object("PaymentMethod", object_id)
    return method


def list_methods(account: Account, parameters: Object) -> Object:
    """`GET /v1/payment_methods`."""
    found = (each for each in account.all("payment_method") if matches(each, parameters))
    return page(found, parameters, "/v1/payment_methods")


def resolve(account: Account, object_id: str, param: str | None = "payment_method") -> Object:
    """The payment method of this id; `pm_card_visa` and its like make a new one, as at Stripe.

    Raises:
        StripeError: resource_missing.
    """
    found = account.find("payment_method", object_id)
    if found is not None:
        return found
    name = _name(object_id)
    if name is None:
        raise missing_object("PaymentMethod", object_id, param)
    return make_method(account, name)


def _name(test_id: str) -> str | None:
    for prefix in _PREFIXES:
        if test_id.startswith(prefix):
            name = test_id.removeprefix(prefix)
            return _ALIASES.get(name, name if name in METHODS else None)
    return None


def _no_address() -> Object:
    return dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))


def _card(method: TestMethod) -> Object:
    return {
        "brand": method.brand,
        "checks": {
            "address_line1_check": None,
            "address_postal_code_check": None,
            "cvc_check": "pass",
        },
        "country": "US",
        "display_brand": method.brand,
        "exp_month": 12,
        "exp_year": 2034,
        "fingerprint": f"offline{method.number[-8:]}",
        "funding": "credit",
        "generated_from": None,
        "last4": method.number[-4:],
        "networks": {"available": [method.brand], "preferred": None},
        "regulated_status": "unregulated",
        "three_d_secure_usage": {"supported": True},
        "wallet": None,
    }


def _sepa(method: TestMethod) -> Object:
    return {
        "bank_code": method.number[4:9],
        "branch_code": "",
        "country": method.number[:2],
        "fingerprint": f"offline{method.number[-8:]}",
        "generated_from": {"charge": None, "setup_attempt": None},
        "last4": method.number[-4:],
    }
