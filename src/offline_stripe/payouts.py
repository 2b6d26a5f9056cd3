"""Payouts: what is available goes to the bank.

Source: docs.stripe.com/payouts, "Manual payouts". There is no bank account, and no schedule.
"""

from src.offline_stripe import balance
from src.offline_stripe.account import Account, Object
from src.offline_stripe.catalog import merged_metadata, metadata_of
from src.offline_stripe.errors import invalid, refused
from src.offline_stripe.listing import matches, page

ARRIVES_AFTER_SECONDS = 2 * 86_400
_PENDING = "pending"


def create(account: Account, parameters: Object) -> Object:
    """`POST /v1/payouts`.

    Raises:
        StripeError: more than is available.
    """
    amount, currency = parameters["amount"], parameters["currency"].lower()
    if amount < 1:
        raise invalid("Invalid positive integer", "amount", "parameter_invalid_integer")
    available = {each["currency"]: each["amount"] for each in balance.balance(account)["available"]}
    if amount > available.get(currency, 0):
        raise refused(
            "You have insufficient funds in your Stripe account for this transfer. Your card "
            "balance is too low.",
            "balance_insufficient",
            "amount",
        )
    payout = account.add(
        {
            "id": account.new_id("po"),
            "object": "payout",
            "amount": amount,
            "application_fee": None,
            "application_fee_amount": None,
            "arrival_date": account.now() + ARRIVES_AFTER_SECONDS,
            "automatic": False,
            "balance_transaction": None,
            "created": account.now(),
            "currency": currency,
            "description": parameters.get("description"),
            "destination": None,
            "failure_balance_transaction": None,
            "failure_code": None,
            "failure_message": None,
            "livemode": False,
            "metadata": metadata_of(parameters),
            "method": parameters.get("method", "standard"),
            "original_payout": None,
            "payout_method": None,
            "reconciliation_status": "not_applicable",
            "reversed_by": None,
            "source_type": "card",
            "statement_descriptor": parameters.get("statement_descriptor"),
            "status": _PENDING,
            "trace_id": None,
            "type": "bank_account",
        }
    )
    booked = balance.book(account, payout, kind="payout", amount=-amount, at_once=True)
    payout["balance_transaction"] = booked["id"]
    account.emit("payout.created", payout)
    return payout


def update(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/payouts/{id}`: its metadata."""
    payout = account.get("payout", object_id)
    return account.change(payout, "payout.updated", metadata=merged_metadata(payout, parameters))


def cancel(account: Account, _parameters: Object, object_id: str) -> Object:
    """`POST /v1/payouts/{id}/cancel`: while it is pending."""
    payout = _pending(account, object_id, "canceled")
    balance.book(account, payout, kind="payout_cancel", amount=payout["amount"], at_once=True)
    return account.change(payout, "payout.canceled", status="canceled")


def settle(account: Account, payout_id: str, *, status: str) -> Object:
    """What the bank says: `paid`, or `failed`, and the money comes back.

    Raises:
        StripeError: the payout has ended already.
    """
    payout = _pending(account, payout_id, status)
    if status == "paid":
        return account.change(payout, "payout.paid", status="paid")
    back = balance.book(
        account, payout, kind="payout_failure", amount=payout["amount"], at_once=True
    )
    return account.change(
        payout,
        "payout.failed",
        status="failed",
        failure_balance_transaction=back["id"],
        failure_code="account_closed",
        failure_message="The bank account has been closed",
    )


def arrive_due(account: Account) -> None:
    """Payouts arrive."""
    for payout in list(account.all("payout")):
        if payout["status"] == _PENDING and payout["arrival_date"] <= account.now():
            settle(account, payout["id"], status="paid")


def list_payouts(account: Account, parameters: Object) -> Object:
    """`GET /v1/payouts`."""
    found = (each for each in account.all("payout") if matches(each, parameters))
    return page(found, parameters, "/v1/payouts")


def _pending(account: Account, payout_id: str, status: str) -> Object:
    payout = account.get("payout", payout_id)
    if payout["status"] != _PENDING:
        raise refused(f"A payout that is {payout['status']} cannot become {status}.")
    return payout
