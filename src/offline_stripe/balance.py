"""The account's balance: what payments, refunds, disputes and payouts move, and when it counts."""

from src.offline_stripe.account import Account, Object
from src.offline_stripe.listing import matches, page

AVAILABLE_AFTER_SECONDS = 2 * 86_400
CURRENCY = "usd"
"""What is shown where there is nothing yet."""


def book(
    account: Account,
    source: Object,
    *,
    kind: str,
    amount: int,
    fee: int = 0,
    description: str | None = None,
    at_once: bool = False,
) -> Object:
    """A balance transaction: `amount` and `fee` in the smallest unit, + comes to us.

    It counts `at_once`, or as part of what is pending for some days.
    """
    details = {
        "amount": fee,
        "application": None,
        "currency": source["currency"],
        "description": "Dispute fee" if kind == "adjustment" else "Stripe processing fees",
        "type": "stripe_fee",
    }
    booked = account.add(
        {
            "id": account.new_id("txn"),
            "object": "balance_transaction",
            "amount": amount,
            "available_on": account.now() + (0 if at_once else AVAILABLE_AFTER_SECONDS),
            "balance_type": "payments",
            "created": account.now(),
            "currency": source["currency"],
            "description": description,
            "exchange_rate": None,
            "fee": fee,
            "fee_details": [details] if fee else [],
            "net": amount - fee,
            "reporting_category": {"adjustment": "dispute"}.get(kind, kind),
            "source": source["id"],
            "status": "available" if at_once else "pending",
            "type": kind,
        }
    )
    if at_once and kind == "charge":
        account.emit("balance.available", balance(account))
    return booked


def balance(account: Account, _parameters: Object | None = None) -> Object:
    """`GET /v1/balance`: what every balance transaction so far comes to, by currency."""
    sums: dict[str, dict[str, int]] = {"available": {CURRENCY: 0}, "pending": {CURRENCY: 0}}
    for each in account.all("balance_transaction"):
        of_status = sums[each["status"]]
        of_status[each["currency"]] = of_status.get(each["currency"], 0) + each["net"]
    shown = {
        status: [
            {"amount": amount, "currency": currency, "source_types": {"card": amount}}
            for currency, amount in of_status.items()
        ]
        for status, of_status in sums.items()
    }
    return {"object": "balance", "livemode": False, **shown}


def become_available(account: Account) -> None:
    """What was pending for long enough counts now."""
    became = [
        each
        for each in account.all("balance_transaction")
        if each["status"] == "pending" and each["available_on"] <= account.now()
    ]
    for each in became:
        each["status"] = "available"
    if became:
        account.emit("balance.available", balance(account))


def list_balance_transactions(account: Account, parameters: Object) -> Object:
    """`GET /v1/balance_transactions`."""
    found = (each for each in account.all("balance_transaction") if matches(each, parameters))
    return page(found, parameters, "/v1/balance_transactions")
