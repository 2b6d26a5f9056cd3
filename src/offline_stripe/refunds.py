"""Refunds: all of a charge or a part of it, at once, pending, failing; never more than was paid."""

from src.offline_stripe import balance
from src.offline_stripe.account import Account, Object
from src.offline_stripe.amounts import money
from src.offline_stripe.cards import Behaviour, method_of
from src.offline_stripe.catalog import merged_metadata, metadata_of
from src.offline_stripe.errors import invalid, refused
from src.offline_stripe.listing import matches, page

_COUNTING = ("pending", "requires_action", "succeeded")


def create(account: Account, parameters: Object) -> Object:
    """`POST /v1/refunds`.

    Raises:
        StripeError: nothing was paid, all is refunded, more is asked for than is left, or the bank
            has taken the money in a dispute.
    """
    charged = _charge(account, parameters)
    currency = charged["currency"]
    left = charged["amount_captured"] - charged["amount_refunded"]
    amount = parameters.get("amount", left)
    if charged["status"] != "succeeded" or not charged["captured"]:
        raise refused("This charge has not been captured, so it cannot be refunded")
    if left == 0:
        raise refused(
            f"Charge {charged['id']} has already been refunded.", "charge_already_refunded"
        )
    if amount < 1:
        raise invalid("Invalid positive integer", "amount", "parameter_invalid_integer")
    if amount > left:
        raise refused(
            f"Refund amount ({money(amount, currency)}) is greater than unrefunded amount on "
            f"charge ({money(left, currency)})",
            param="amount",
        )
    if _is_charged_back(account, charged):
        raise refused(
            f"Charge {charged['id']} has been charged back; cannot issue a refund.",
            "charge_disputed",
        )
    method = method_of(account, account.get("payment_method", charged["payment_method"]))
    refund = _new(account, charged, amount, parameters)
    if method.behaviour is Behaviour.REFUND_PENDS:
        refund |= {"status": "pending", "pending_reason": "processing"}
    _recount(account, charged)
    account.emit("refund.created", refund)
    account.emit("charge.refunded", charged)
    if method.behaviour is Behaviour.REFUND_FAILS:
        settle(account, refund["id"], status="failed")
    return refund


def settle(account: Account, refund_id: str, *, status: str, reason: str = "unknown") -> Object:
    """What the bank says later: `succeeded`, `failed` or `canceled`.

    Raises:
        StripeError: the refund has ended already.
    """
    refund = account.get("refund", refund_id)
    if refund["status"] not in _COUNTING or refund["status"] == status:
        raise refused(f"This refund has the status {refund['status']}", "refund_unexpected_state")
    charged = account.get("charge", refund["charge"])
    fields: Object = {"status": status}
    if status in ("failed", "canceled"):
        back = balance.book(account, refund, kind="refund_failure", amount=refund["amount"])
        fields |= {
            "failure_balance_transaction": back["id"],
            "failure_reason": reason if status == "failed" else "merchant_request",
        }
    before = dict(refund)
    account.change(refund, unset=["pending_reason"], **fields)
    _recount(account, charged)
    for event_type in ("refund.updated", "charge.refund.updated"):
        account.emit(event_type, refund, before)
    if status == "failed":
        account.emit("refund.failed", refund)
    return refund


def update(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/refunds/{id}`: metadata, nothing else."""
    refund = account.get("refund", object_id)
    before = dict(refund)
    refund["metadata"] = merged_metadata(refund, parameters)
    for event_type in ("refund.updated", "charge.refund.updated"):
        account.emit(event_type, refund, before)
    return refund


def cancel(account: Account, _parameters: Object, object_id: str) -> Object:
    """`POST /v1/refunds/{id}/cancel`: only one that waits for the customer."""
    refund = account.get("refund", object_id)
    if refund["status"] != "requires_action":
        raise refused(f"You cannot cancel a refund with a status of {refund['status']}.")
    return settle(account, object_id, status="canceled")


def list_refunds(account: Account, parameters: Object) -> Object:
    """`GET /v1/refunds`."""
    found = (each for each in account.all("refund") if matches(each, parameters))
    return page(found, parameters, "/v1/refunds")


def list_of_charge(account: Account, parameters: Object, object_id: str) -> Object:
    """`GET /v1/charges/{id}/refunds`."""
    account.get("charge", object_id)
    found = (each for each in account.all("refund") if each["charge"] == object_id)
    return page(found, parameters, f"/v1/charges/{object_id}/refunds")


def _charge(account: Account, parameters: Object) -> Object:
    named = [name for name in ("charge", "payment_intent") if parameters.get(name)]
    if not named:
        raise invalid(
            "One of the following params should be provided for this request: payment_intent or "
            "charge.",
            code="parameter_missing",
        )
    if "charge" in named:
        charged = account.get("charge", parameters["charge"], "charge")
        if parameters.get("payment_intent", charged["payment_intent"]) != charged["payment_intent"]:
            raise invalid("The charge is not of this PaymentIntent", "charge")
        return charged
    intent = account.get("payment_intent", parameters["payment_intent"], "payment_intent")
    if intent["latest_charge"] is None:
        raise refused(f"This PaymentIntent ({intent['id']}) does not have a successful charge.")
    return account.get("charge", intent["latest_charge"])


def _new(account: Account, charged: Object, amount: int, parameters: Object) -> Object:
    refund: Object = {
        "id": account.new_id("re"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": None,
        "charge": charged["id"],
        "created": account.now(),
        "currency": charged["currency"],
        "customer": charged["customer"],
        "customer_account": None,
        "destination_details": _destination(charged["payment_method_details"]["type"]),
        "metadata": metadata_of(parameters),
        "payment_intent": charged["payment_intent"],
        "payment_method": charged["payment_method"],
        "reason": parameters.get("reason"),
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
    }
    refund["balance_transaction"] = balance.book(account, refund, kind="refund", amount=-amount)[
        "id"
    ]
    return account.add(refund)


def _destination(kind: str) -> Object:
    if kind != "card":
        return {"type": kind}
    reference = {"reference_status": "pending", "reference_type": "acquirer_reference_number"}
    return {"card": reference | {"type": "refund"}, "type": "card"}


def _recount(account: Account, charged: Object) -> None:
    refunded = sum(
        each["amount"]
        for each in account.all("refund")
        if each["charge"] == charged["id"] and each["status"] in _COUNTING
    )
    charged["amount_refunded"] = refunded
    charged["refunded"] = refunded == charged["amount_captured"]


def _is_charged_back(account: Account, charged: Object) -> bool:
    return any(
        each["charge"] == charged["id"]
        and not each["is_charge_refundable"]
        and each["status"] != "won"
        for each in account.all("dispute")
    )
