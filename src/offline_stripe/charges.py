"""Charges: what a payment reserves and takes, or why it does not."""

from src.offline_stripe import balance
from src.offline_stripe.account import Account, Object
from src.offline_stripe.cards import Behaviour, TestMethod, method_of
from src.offline_stripe.catalog import merged_metadata
from src.offline_stripe.listing import list_of, matches, page

FEE_PER_TEN_THOUSAND = 290
FEE_FIXED_CENTS = 30
_CHANGEABLE = ("customer", "description", "receipt_email", "shipping", "transfer_group")
DECLINE_MESSAGES = {
    "generic_decline": "Your card was declined.",
    "insufficient_funds": "Your card has insufficient funds.",
    "authentication_required": "Your card was declined. This transaction requires authentication.",
}


def charge(account: Account, intent: Object, payment_method: Object, *, status: str) -> Object:
    """A charge of all the intent asks for; what came of it is `succeeded`, `pending`, `failed`."""
    method = method_of(account, payment_method)
    made = account.add(
        {
            "id": account.new_id("ch"),
            "object": "charge",
            "amount": intent["amount"],
            "amount_captured": 0,
            "amount_refunded": 0,
            "application": None,
            "application_fee": None,
            "application_fee_amount": None,
            "balance_transaction": None,
            "billing_details": payment_method["billing_details"],
            "calculated_statement_descriptor": "OFFLINE STRIPE",
            "captured": False,
            "created": account.now(),
            "currency": intent["currency"],
            "customer": intent["customer"],
            "description": intent["description"],
            "disputed": False,
            "failure_balance_transaction": None,
            "failure_code": None,
            "failure_message": None,
            "fraud_details": {},
            "livemode": False,
            "metadata": dict(intent["metadata"]),
            "on_behalf_of": None,
            "outcome": _outcome(method, status),
            "paid": status != "failed",
            "payment_intent": intent["id"],
            "payment_method": payment_method["id"],
            "payment_method_details": _details(payment_method, intent["amount"]),
            "radar_options": {},
            "receipt_email": intent["receipt_email"],
            "receipt_number": None,
            "receipt_url": None,
            "refunded": False,
            "review": None,
            "shipping": intent["shipping"],
            "source": None,
            "source_transfer": None,
            "statement_descriptor": intent["statement_descriptor"],
            "statement_descriptor_suffix": intent["statement_descriptor_suffix"],
            "status": status,
            "transfer_data": None,
            "transfer_group": intent["transfer_group"],
        }
    )
    intent["latest_charge"] = made["id"]
    if status == "failed":
        fail(account, made, method)
    elif status == "pending":
        made["captured"] = True
        account.emit("charge.pending", made)
    elif intent["capture_method"] == "manual":
        account.emit("charge.succeeded", made)
    else:
        capture(account, made)
        account.emit("charge.succeeded", made)
    return made


def capture(account: Account, charged: Object, amount: int | None = None) -> None:
    """Take the money that a charge has reserved."""
    taken = charged["amount"] if amount is None else amount
    fee = (taken * FEE_PER_TEN_THOUSAND + 5_000) // 10_000 + FEE_FIXED_CENTS
    method = method_of(account, account.get("payment_method", charged["payment_method"]))
    at_once = method.behaviour is Behaviour.BYPASS_PENDING
    booked = balance.book(account, charged, kind="charge", amount=taken, fee=fee, at_once=at_once)
    charged |= {
        "amount_captured": taken,
        "balance_transaction": booked["id"],
        "captured": True,
        "paid": True,
        "receipt_url": f"{account.public_url}/receipts/{charged['id']}",
        "status": "succeeded",
    }


def fail(account: Account, charged: Object, method: TestMethod) -> None:
    """Note on a charge that no money came."""
    reason = method.decline_code
    charged |= {
        "captured": False,
        "failure_code": "card_declined" if reason else "bank_account_declined",
        "failure_message": DECLINE_MESSAGES.get(
            reason or "", "Your card was declined." if reason else "The debit was not honoured."
        ),
        "paid": False,
        "status": "failed",
    }
    account.emit("charge.failed", charged)


def update(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/charges/{id}`."""
    charged = account.get("charge", object_id)
    fields: Object = {name: parameters[name] or None for name in _CHANGEABLE if name in parameters}
    metadata = merged_metadata(charged, parameters)
    return account.change(charged, "charge.updated", metadata=metadata, **fields)


def list_charges(account: Account, parameters: Object) -> Object:
    """`GET /v1/charges`."""
    found = (each for each in account.all("charge") if matches(each, parameters))
    return page(found, parameters, "/v1/charges")


def refunds_of(account: Account, charged: Object) -> Object:
    """The newest refunds of a charge, as `expand[]=refunds` shows them."""
    found = [each for each in account.all("refund") if each["charge"] == charged["id"]]
    url = f"/v1/charges/{charged['id']}/refunds"
    return list_of(found[::-1][:10], url, has_more=len(found) > 10)  # noqa: PLR2004  Stripe's page


def _outcome(method: TestMethod, status: str) -> Object:
    failed = status == "failed"
    return {
        "advice_code": None,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "declined_by_network" if failed else "approved_by_network",
        "reason": method.decline_code if failed else None,
        "risk_level": "normal",
        "risk_score": 20,
        "seller_message": (
            "The bank did not return any further details with this decline."
            if failed
            else "Payment complete."
        ),
        "type": "issuer_declined" if failed else "authorized",
    }


def _details(payment_method: Object, amount: int) -> Object:
    kind = payment_method["type"]
    if kind != "card":
        described = payment_method[kind]
        details = {
            name: described[name] for name in ("bank_code", "branch_code", "country", "last4")
        }
        details |= {"fingerprint": described["fingerprint"], "mandate": None}
        return {kind: details, "type": kind}
    card = payment_method["card"]
    shown = ("brand", "checks", "country", "exp_month", "exp_year", "fingerprint", "funding")
    return {
        "card": {name: card[name] for name in shown}
        | {
            "amount_authorized": amount,
            "authorization_code": None,
            "electronic_commerce_indicator": None,
            "installments": None,
            "last4": card["last4"],
            "mandate": None,
            "network": card["brand"],
            "network_transaction_id": None,
            "regulated_status": "unregulated",
            "three_d_secure": None,
            "transaction_link_id": None,
            "wallet": None,
        },
        "type": "card",
    }
