"""What a Checkout Session comes to: its items, less discounts, with taxes on top or within.

Taxes are one percentage of the account's, computed when the customer's address is known, that is
when they pay (docs.stripe.com/tax/products-prices-tax-codes-tax-behavior).
"""

from decimal import Decimal

from src.offline_stripe import discounts
from src.offline_stripe.account import Account, Object
from src.offline_stripe.amounts import check_amount, rounded
from src.offline_stripe.errors import invalid


def reckon(account: Account, session: Object, items: list[Object]) -> None:
    """What it comes to: the items, less discounts, taxed once the customer's address is known."""
    for item in items:
        item |= {"amount_discount": 0, "amount_tax": 0, "amount_total": item["amount_subtotal"]}
    discounts.take_off(account, items, session["discounts"])
    if session["automatic_tax"]["status"] == "complete":
        _add_taxes(account, items)
    _total_up(session, items)


def check_taxable(account: Account, items: list[Object]) -> None:
    """Refuse taxes where nobody says whether a price includes them.

    Raises:
        StripeError: neither the price nor the account does.
    """
    for number, item in enumerate(items):
        if _behavior(account, item["price"]) == "unspecified":
            raise invalid(
                "You must set `tax_behavior` on this price, or a default tax behavior in your "
                "account's Tax settings, to use automatic tax.",
                f"line_items[{number}]",
            )


def check_payable(session: Object) -> None:
    """Refuse a total that is too little for a payment, unless it is nothing.

    Raises:
        StripeError: amount_too_small, amount_too_large.
    """
    if session["amount_total"]:
        says = "The Checkout Session's total amount due must add up to"
        check_amount(session["amount_total"], session["currency"], "line_items", says)


def _add_taxes(account: Account, items: list[Object]) -> None:
    """Tax the items as their prices say, or else the account."""
    percent = Decimal(account.defaults["tax_percent"])
    for item in items:
        amount = Decimal(item["amount_total"])
        if _behavior(account, item["price"]) == "inclusive":
            item["amount_tax"] = item["amount_total"] - rounded(amount / (1 + percent / 100))
        else:
            item["amount_tax"] = rounded(amount * percent / 100)
            item["amount_total"] += item["amount_tax"]


def _total_up(session: Object, items: list[Object]) -> None:
    """Have the session say what its items come to; where that is nothing, nothing is due."""
    session["amount_total"] = sum(each["amount_total"] for each in items)
    for name in ("amount_discount", "amount_tax"):
        session["total_details"][name] = sum(each[name] for each in items)
    session["payment_status"] = "unpaid" if session["amount_total"] else "no_payment_required"


def _behavior(account: Account, price: Object) -> str:
    own: str = price["tax_behavior"]
    default: str = account.defaults["tax_behavior"]
    return default if own == "unspecified" else own
