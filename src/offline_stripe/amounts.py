"""Currencies and amounts: which ones Stripe takes, the least it charges, how it writes them.

Source: docs.stripe.com/currencies. Amounts are in a currency's smallest unit.
"""

from decimal import ROUND_HALF_UP, Decimal

from src.html_pages import DECIMALS, in_units
from src.offline_stripe.errors import invalid

AMOUNT_MAX = 99_999_999
MINIMUM = {
    "aed": 200,
    "aud": 50,
    "bgn": 100,
    "brl": 50,
    "cad": 50,
    "chf": 50,
    "czk": 1_500,
    "dkk": 250,
    "eur": 50,
    "gbp": 30,
    "hkd": 400,
    "huf": 17_500,
    "inr": 50,
    "jpy": 50,
    "mxn": 1_000,
    "myr": 200,
    "nok": 300,
    "nzd": 50,
    "pln": 200,
    "ron": 200,
    "sek": 300,
    "sgd": 50,
    "thb": 1_000,
    "usd": 50,
}
"""Of the others Stripe says only that they come to as much once they are converted."""
_SYMBOLS = {"eur": "€", "gbp": "£", "jpy": "¥", "usd": "$"}


def money(amount: int, currency: str) -> str:
    """As Stripe writes an amount in a message: `$5.00`, `¥500`, `5.00 chf`."""
    text = in_units(amount, currency)
    symbol = _SYMBOLS.get(currency)
    return f"{symbol}{text}" if symbol else f"{text} {currency}"


def rounded(amount: Decimal) -> int:
    """To the smallest unit; half of it counts as one."""
    return int(amount.quantize(Decimal(1), ROUND_HALF_UP))


def check_currency(currency: str, param: str) -> None:
    """Refuse what Stripe does not charge in.

    Raises:
        StripeError: 400.
    """
    if currency.lower() not in DECIMALS:
        known = ", ".join(sorted(DECIMALS))
        raise invalid(
            f"Invalid currency: {currency.lower()}. Stripe currently supports these currencies: "
            f"{known}",
            param,
        )


def check_amount(
    amount: int, currency: str, param: str = "amount", says: str = "Amount must be"
) -> None:
    """Refuse to charge less than Stripe does, or more.

    Raises:
        StripeError: amount_too_small, amount_too_large, or no positive number at all.
    """
    least = MINIMUM.get(currency, 1)
    if amount < 1:
        raise invalid(
            "This value must be greater than or equal to 1.", param, "parameter_invalid_integer"
        )
    if amount < least:
        raise invalid(
            f"{says} at least {money(least, currency)} {currency}",
            param,
            "amount_too_small",
        )
    if amount > AMOUNT_MAX:
        raise invalid(
            f"{says} no more than {money(AMOUNT_MAX, currency)} {currency}",
            param,
            "amount_too_large",
        )
